export { VfioUserHost } from './host.ts';
export { VfioUserServer, type VfioUserServerOptions } from './server.ts';
