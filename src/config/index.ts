/**
 * Options, as the rest of the program uses them. Portable: nothing here reads a file, a clock or the environment.
 *
 *   argv ──▶ parseCommandLine ─┐
 *   file ──▶ parseConfigFile ──┴─▶ Declaration[] ──▶ checkReferences ──▶ the graph is built
 *   QMP and the embedding API ──▶ readNetdev, readDevice, readObject, readChardev
 */
export { formatMac, type Host, type IpAddress, type Ipv4, type Ipv6, parseMac } from './address.ts';
export {
  type ChardevConfig,
  type ChardevDevice,
  type ChardevReference,
  parseChardev,
  parseChardevReference,
  readChardev,
} from './chardevs.ts';
export {
  type CommandLine,
  CommandLineError,
  type Declaration,
  type Declared,
  formatCliError,
  parseCommandLine,
} from './commandline.ts';
export { parseConfigFile } from './config-file.ts';
export { type DeviceConfig, type DeviceInput, parseDevice, readDevice } from './devices/index.ts';
export { type GuestConfig, type ProbeConfig, parseGuest, readGuest, type V86Config } from './guest.ts';
export { type JsonObject, type JsonValue, parseJson } from './json.ts';
export { MacPool } from './mac-pool.ts';
export {
  type NetdevConfig,
  type NetdevConfigOf,
  type NetdevInput,
  type NetdevTypeName,
  netdevTypes,
  parseNetdev,
  readNetdev,
} from './netdevs/index.ts';
export { type ObjectConfig, type ObjectInput, parseObject, readObject } from './objects/index.ts';
export { checkReferences } from './references.ts';
