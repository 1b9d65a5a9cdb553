export { VhostUserHost } from './host.ts';
export { VhostUserBackend, type VhostUserOptions } from './server.ts';
