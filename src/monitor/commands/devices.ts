/** Hot plug of NICs, and what can be set about them. */

import { driverNamed, nicDrivers, readDevice } from '../../config/devices/index.ts';
import { addDeviceSchema, deviceProperties } from '../../config/introspect.ts';
import { objectTypes } from '../../config/objects/index.ts';
import { OptionError } from '../../core/errors.ts';
import { type Command, command, rawCommand } from '../command.ts';
import { deviceNotFound } from '../errors.ts';
import { devicePath, findDevice } from '../qom.ts';
import { any, list, nothing, optional, str, struct } from '../shape.ts';

/** A property, as qom-list tells it too. */
export const objectPropertyInfo = struct('ObjectPropertyInfo', {
  name: str,
  type: str,
  description: optional(str),
  'default-value': optional(any),
});

export const deviceCommands: readonly Command[] = [
  rawCommand({
    name: 'device_add',
    doc: 'Makes a NIC and whatever drives it here.',
    returns: nothing,
    schema: addDeviceSchema,
    run: async (args, { monitor }) => {
      await monitor.addDevice(readDevice(args));
    },
  }),
  command({
    name: 'device_del',
    doc: 'Unplugs a NIC at once; DEVICE_DELETED follows.',
    returns: nothing,
    args: { id: { kind: 'string', required: true, doc: 'Its id, or its path in the object tree.' } },
    run: ({ id }, { monitor }) => {
      const { network } = monitor;
      const device = findDevice(network, id);
      if (device === undefined) throw deviceNotFound(id);
      const path = devicePath(device);
      monitor.removeDevice(device.id);
      // Behind the reply, as where a guest has its say first.
      network.loop.post(() =>
        network.context.emit('DEVICE_DELETED', {
          ...(device.config.id !== undefined && { device: device.id }),
          path,
        }),
      );
    },
  }),
  command({
    name: 'device-list-properties',
    doc: 'The properties of a NIC model.',
    returns: list(objectPropertyInfo),
    args: { typename: { kind: 'string', required: true, doc: 'The name that device_add takes.' } },
    run: ({ typename }) => {
      if (Object.hasOwn(nicDrivers, typename)) return deviceProperties(driverNamed(typename));
      if (Object.hasOwn(objectTypes, typename)) {
        throw new OptionError("Parameter 'typename' expects a non-abstract device type");
      }
      throw deviceNotFound(typename);
    },
  }),
];
