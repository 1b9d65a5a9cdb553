import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { putLatin1 } from '../../src/wire/bytes.ts';
import * as tftp from '../../src/wire/tftp.ts';

const NONE: tftp.TftpOptions = { blockBytes: -1, timeoutSeconds: -1, transferBytes: -1, windowBlocks: -1 };
const bytes = new Uint8Array(2000);
const packet = new tftp.TftpPacket();

function parseText(text: string): boolean {
  return packet.parse(bytes, 1, 1 + putLatin1(bytes, 1, text));
}

describe('tftp', () => {
  it('requests and option acknowledgements go there and back', () => {
    const maybe = (min: number, max: number) => fc.oneof(fc.constant(-1), fc.integer({ min, max }));
    fc.assert(
      fc.property(
        fc.stringMatching(/^[\x21-\xff]{1,60}$/),
        fc.constantFrom('octet', 'netascii'),
        maybe(8, 65464),
        maybe(1, 255),
        maybe(0, 1e12),
        maybe(1, 65535),
        (filename, mode, blockBytes, timeoutSeconds, transferBytes, windowBlocks) => {
          const options = { blockBytes, timeoutSeconds, transferBytes, windowBlocks };
          const length = tftp.writeTftpRequest(bytes, 3, 2000, tftp.TFTP_RRQ, filename, mode, options);
          expect(packet.parse(bytes, 3, 3 + length)).toBe(true);
          expect(packet).toMatchObject({ opcode: tftp.TFTP_RRQ, filename, mode, ...options });
          expect(tftp.writeTftpRequest(bytes, 3, 3 + length - 1, 1, filename, mode, options)).toBe(-1);
          const granted = tftp.writeTftpOack(bytes, 3, 2000, options);
          expect(packet.parse(bytes, 3, 3 + granted)).toBe(true);
          expect(packet).toMatchObject({ opcode: tftp.TFTP_OACK, filename: '', ...options });
        },
      ),
    );
  });

  it('data, acknowledgements and errors go there and back', () => {
    expect(tftp.writeTftpData(bytes, 0, 0xfffe)).toBe(4);
    expect(packet.parse(bytes, 0, 4 + 100)).toBe(true);
    expect(packet).toMatchObject({ opcode: tftp.TFTP_DATA, block: 0xfffe, payload: 4, payloadEnd: 104 });
    expect(tftp.writeTftpAck(bytes, 0, 9)).toBe(4);
    expect(packet.parse(bytes, 0, 4)).toBe(true);
    expect(packet).toMatchObject({ opcode: tftp.TFTP_ACK, block: 9 });
    expect(packet.parse(bytes, 0, 3)).toBe(false);
    const length = tftp.writeTftpError(bytes, 0, tftp.TFTP_ERR_NOT_FOUND, 'no such file');
    expect(packet.parse(bytes, 0, length)).toBe(true);
    expect(packet).toMatchObject({ errorCode: 1, errorText: 'no such file' });
    expect(packet.parse(bytes, 0, length - 1)).toBe(false);
  });

  it.each([
    '',
    '\0',
    '\0\x09',
    '\0\x01',
    '\0\x01file',
    '\0\x01file\0',
    '\0\x01file\0octet',
    '\0\x01\0octet\0',
    '\0\x01file\0\0',
    '\0\x01f\0octet\0blksize\0',
    '\0\x01f\0octet\0blksize\x00512',
    '\0\x06blksize',
    '\0\x05\0',
  ])('refuses %j', (text) => expect(parseText(text)).toBe(false));

  it.each([
    '7',
    '65465',
    '0',
    '-8',
    '1e3',
    '512x',
    '',
    '9999999999999999',
  ])('a block size of %j counts as absent', (value) => {
    expect(parseText(`\0\x01f\0octet\0blksize\0${value}\0`)).toBe(true);
    expect(packet).toMatchObject(NONE);
  });

  it('reads at most 16 options', () => {
    expect(parseText(`\0\x01f\0octet\0${'x\0y\0'.repeat(16)}blksize\x001024\0`)).toBe(true);
    expect(packet.blockBytes).toBe(-1);
  });
});
