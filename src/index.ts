/** The embedding API for Node: everything portable (browser.ts), and the host's network behind it. */

export { nodeBackends } from './backends/index.ts';
export * from './browser.ts';
export { VfioUserHost, VfioUserServer, type VfioUserServerOptions } from './guest/vfio-user/index.ts';
export { VhostUserBackend, VhostUserHost, type VhostUserOptions } from './guest/vhost-user/index.ts';
export { openFileSink } from './host-io/file-sink.ts';
export { readWholeFile } from './host-io/file-source.ts';
export { createHostIo, type HostIoOptions } from './host-io/index.ts';
export { infoNetwork } from './network/info.ts';
