/** netemu/v86: NIC models and links for machines of the npm package v86, under Node and in a browser. */

export type { V86Machine } from './machine.ts';
export { attachNet, V86Net } from './net.ts';
export { type AttachedNic, type AttachSite, attachNic } from './nic.ts';
