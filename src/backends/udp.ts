/**
 * UDP links of `socket` and `dgram`: to one peer, or in a multicast group.
 *
 * To one peer the socket is connected: only the peer's datagrams are taken, a peer that is not there is told by the host (and counted), and
 * the kernel may cut runs of frames itself.
 *
 * In a group, one socket receives, bound to the group's port beside those of other emulators on this machine, and another sends. A group
 * returns to each of its members what they sent; with a sending port of its own a netdev knows its echoes and drops them, so that no
 * guest finds its own neighbour solicitations and calls them a duplicate address.
 */

import type { IpAddress } from '../config/address.ts';
import { HostIoError } from '../core/errors.ts';
import { packAddress } from '../host-io/address.ts';
import { ADDRESS_BYTES, type Endpoint, type Handle, type HostIo } from '../host-io/host-io.ts';
import type { DatagramPortOptions } from './datagram-port.ts';
import { opening, retold, showEndpoint } from './services.ts';

/** Asked of the kernel, which gives an ordinary user less: room for what peers send while the guest or netemu is busy. */
export const RECEIVE_BUFFER_BYTES = 2 << 20;

export function openUnicast(hostIo: HostIo, local: Endpoint, remote: Endpoint): DatagramPortOptions {
  const options = {
    local,
    remote,
    family: familyOf(remote.address),
    gro: true,
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
  };
  return { receive: opening(`can't bind ip=${local.address} to socket`, () => hostIo.udpOpen(options)) };
}

/** `local`: the address of the interface to use. */
export function openGroup(
  hostIo: HostIo,
  group: IpAddress,
  port: number,
  local: string | undefined,
): DatagramPortOptions {
  const remote: Endpoint = { address: group.text, port };
  const receive = opening(`can't join multicast group ${showEndpoint(remote)}`, () =>
    hostIo.udpOpen({
      local: remote,
      reuseAddress: true,
      gro: true,
      receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      multicast: { group: group.text, ...(local === undefined ? {} : { interface: local }) },
    }),
  );
  let send: Handle = 0;
  try {
    send = hostIo.udpOpen({
      remote,
      ...(local === undefined ? {} : { local: { address: local, port: 0 } }),
      ...(local !== undefined && group.family === 6
        ? { multicast: { group: group.text, interface: local } }
        : {}),
    });
    const ownSource = new Uint8Array(ADDRESS_BYTES);
    packAddress(hostIo.localEndpoint(send), ownSource, 0);
    return { receive, send, ownSource };
  } catch (error) {
    hostIo.close(receive);
    if (send !== 0) hostIo.close(send);
    throw retold(`can't send to multicast group ${showEndpoint(remote)}`, error);
  }
}

export function familyOf(address: string): 4 | 6 {
  return address.includes(':') ? 6 : 4;
}

/** True for a descriptor that datagrams can be received on. */
export function isDatagramSocket(hostIo: HostIo, handle: Handle): boolean {
  return hostIo.receiveDatagrams(handle, new Int32Array(0), 0, 0, 0) >= 0;
}

/** The error for a descriptor of the wrong kind; closes it. */
export function notDatagram(hostIo: HostIo, handle: Handle, shown: string): HostIoError {
  hostIo.close(handle);
  return new HostIoError('getsockopt', 'ENOTSOCK', `fd ${shown} is not a datagram socket`);
}
