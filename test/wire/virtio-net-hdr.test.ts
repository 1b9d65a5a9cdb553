import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/wire/bytes.ts';
import * as vnet from '../../src/wire/virtio-net-hdr.ts';

const u16 = fc.nat(0xffff);

describe('virtio_net_hdr', () => {
  it('goes there and back in each length', () => {
    fc.assert(
      fc.property(
        fc.nat(255),
        fc.nat(255),
        u16,
        u16,
        u16,
        u16,
        u16,
        (flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, numBuffers) => {
          const fields = { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset };
          for (const size of [vnet.VNET_HDR_LEGACY_BYTES, vnet.VNET_HDR_BYTES, vnet.VNET_HDR_HASH_BYTES]) {
            const bytes = new Uint8Array(40).fill(0xee);
            const header = Object.assign(new vnet.VirtioNetHdr(), fields, { numBuffers });
            expect(header.write(bytes, 3, size)).toBe(size);
            expect(bytes[3 + size]).toBe(0xee);
            const read = new vnet.VirtioNetHdr();
            expect(read.parse(bytes, 3, 3 + size, size)).toBe(true);
            expect(read).toMatchObject({ ...fields, numBuffers: size === 10 ? 0 : numBuffers });
            expect(read.parse(bytes, 3, 3 + size - 1, size)).toBe(false);
          }
        },
      ),
    );
  });

  it('lies where the specification says', () => {
    const bytes = new Uint8Array(20);
    const fields = {
      flags: 1,
      gsoType: 4,
      hdrLen: 0x42,
      gsoSize: 0x5a8,
      csumStart: 0x22,
      csumOffset: 0x10,
      numBuffers: 2,
    };
    Object.assign(new vnet.VirtioNetHdr(), fields).write(bytes, 0, 20);
    vnet.writeVnetHash(bytes, 0, 0x12345678, 5);
    expect(toHex(bytes)).toBe('0104 4200 a805 2200 1000 0200 78563412 0500 0000'.replace(/ /g, ''));
  });

  const settle = (fields: Partial<vnet.VirtioNetHdr>, frameBytes: number) => {
    const header = Object.assign(new vnet.VirtioNetHdr(), fields);
    return header.settle(frameBytes) ? header : null;
  };

  it('a segment size of 0 is no segmentation (CVE-2016-6834)', () => {
    expect(settle({ gsoType: vnet.VNET_HDR_GSO_TCPV4, gsoSize: 0 }, 2000)?.gsoType).toBe(
      vnet.VNET_HDR_GSO_NONE,
    );
  });

  it('a checksum field must lie in the frame', () => {
    const flags = vnet.VNET_HDR_F_NEEDS_CSUM;
    expect(settle({ flags, csumStart: 34, csumOffset: 16 }, 52)).not.toBeNull();
    expect(settle({ flags, csumStart: 34, csumOffset: 16 }, 51)).toBeNull();
    expect(settle({ flags, csumStart: 65535, csumOffset: 65535 }, 65535)).toBeNull();
    expect(settle({ csumStart: 65535, csumOffset: 65535 }, 60)).not.toBeNull();
  });

  it('knows the GSO types, and ECN only with TCP', () => {
    for (const gsoType of [1, 3, 4, 5, 0x81, 0x84])
      expect(settle({ gsoType, gsoSize: 1 }, 60)?.gsoType).toBe(gsoType);
    for (const gsoType of [2, 6, 0x7f, 0x83, 0x85]) expect(settle({ gsoType, gsoSize: 1 }, 60)).toBeNull();
    expect(settle({ hdrLen: 65535 }, 60)?.hdrLen).toBe(60);
  });
});
