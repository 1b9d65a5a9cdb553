/**
 * TFTP (RFC 1350) with options (RFC 2347): block size (RFC 2348), timeout and transfer size (RFC 2349), window size
 * (RFC 7440). Codec only: files, sessions and what a name may reach are the server's.
 *
 * Texts must end in NUL within the packet. Names are taken byte for byte; what they may contain is decided where
 * files are opened. An option whose value is not a number in its legal range counts as absent, which RFC 2347 allows
 * a server to do and which leaves the transfer at its defaults.
 */

import { getLatin1, putLatin1, putU16be, u16be } from './bytes.ts';

export const TFTP_PORT = 69;
export const TFTP_RRQ = 1;
export const TFTP_WRQ = 2;
export const TFTP_DATA = 3;
export const TFTP_ACK = 4;
export const TFTP_ERROR = 5;
export const TFTP_OACK = 6;

export const TFTP_ERR_UNDEFINED = 0;
export const TFTP_ERR_NOT_FOUND = 1;
export const TFTP_ERR_ACCESS = 2;
export const TFTP_ERR_ILLEGAL = 4;
export const TFTP_ERR_UNKNOWN_ID = 5;
export const TFTP_ERR_OPTION = 8;

export const TFTP_HEADER_BYTES = 4;
export const TFTP_DEFAULT_BLOCK_BYTES = 512;
export const TFTP_BLOCK_MIN_BYTES = 8;
export const TFTP_BLOCK_MAX_BYTES = 65464;
/** More option pairs than this are not read. */
const OPTIONS_MAX = 16;

/** What a request asks for or an OACK grants; -1 is absent. */
export interface TftpOptions {
  blockBytes: number;
  timeoutSeconds: number;
  transferBytes: number;
  windowBlocks: number;
}

/** One packet of any kind. Reused: `parse` overwrites every field. */
export class TftpPacket implements TftpOptions {
  opcode = 0;
  /** Of DATA and ACK. */
  block = 0;
  /** Of a request. `mode` is in lower case. */
  filename = '';
  mode = '';
  /** Of an ERROR. */
  errorCode = 0;
  errorText = '';
  /** Of DATA. */
  payload = 0;
  payloadEnd = 0;
  blockBytes = -1;
  timeoutSeconds = -1;
  transferBytes = -1;
  windowBlocks = -1;

  /** False for an unknown opcode, a text without its NUL, an empty file name or mode, or a packet cut short. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    this.#clear();
    if (end - offset < 2) return false;
    this.opcode = u16be(bytes, offset);
    switch (this.opcode) {
      case TFTP_RRQ:
      case TFTP_WRQ:
        return this.#request(bytes, offset + 2, end);
      case TFTP_DATA:
      case TFTP_ACK:
        if (end - offset < TFTP_HEADER_BYTES) return false;
        this.block = u16be(bytes, offset + 2);
        this.payload = offset + TFTP_HEADER_BYTES;
        this.payloadEnd = end;
        return true;
      case TFTP_ERROR: {
        if (end - offset < TFTP_HEADER_BYTES) return false;
        this.errorCode = u16be(bytes, offset + 2);
        const nul = findNul(bytes, offset + TFTP_HEADER_BYTES, end);
        if (nul < 0) return false;
        this.errorText = textBefore(bytes, offset + TFTP_HEADER_BYTES, nul);
        return true;
      }
      case TFTP_OACK:
        return this.#options(bytes, offset + 2, end);
      default:
        return false;
    }
  }

  #clear(): void {
    this.opcode = 0;
    this.block = 0;
    this.filename = '';
    this.mode = '';
    this.errorCode = 0;
    this.errorText = '';
    this.payload = 0;
    this.payloadEnd = 0;
    this.blockBytes = -1;
    this.timeoutSeconds = -1;
    this.transferBytes = -1;
    this.windowBlocks = -1;
  }

  #request(bytes: Uint8Array, offset: number, end: number): boolean {
    const nameEnd = findNul(bytes, offset, end);
    if (nameEnd <= offset) return false;
    const modeEnd = findNul(bytes, nameEnd + 1, end);
    if (modeEnd <= nameEnd + 1) return false;
    this.filename = textBefore(bytes, offset, nameEnd);
    this.mode = textBefore(bytes, nameEnd + 1, modeEnd).toLowerCase();
    return this.#options(bytes, modeEnd + 1, end);
  }

  #options(bytes: Uint8Array, offset: number, end: number): boolean {
    let at = offset;
    for (let count = 0; at < end && count < OPTIONS_MAX; count++) {
      const nameEnd = findNul(bytes, at, end);
      const valueEnd = nameEnd < 0 ? -1 : findNul(bytes, nameEnd + 1, end);
      if (valueEnd < 0) return false;
      const value = textBefore(bytes, nameEnd + 1, valueEnd);
      this.#option(textBefore(bytes, at, nameEnd).toLowerCase(), value);
      at = valueEnd + 1;
    }
    return true;
  }

  #option(name: string, value: string): void {
    if (!/^[0-9]{1,15}$/.test(value)) return;
    const number = Number(value);
    if (name === 'blksize' && number >= TFTP_BLOCK_MIN_BYTES && number <= TFTP_BLOCK_MAX_BYTES) {
      this.blockBytes = number;
    } else if (name === 'timeout' && number >= 1 && number <= 255) this.timeoutSeconds = number;
    else if (name === 'tsize') this.transferBytes = number;
    else if (name === 'windowsize' && number >= 1 && number <= 65535) this.windowBlocks = number;
  }
}

function findNul(bytes: Uint8Array, offset: number, end: number): number {
  for (let at = offset; at < end; at++) if (bytes[at] === 0) return at;
  return -1;
}

function textBefore(bytes: Uint8Array, offset: number, end: number): string {
  return getLatin1(bytes, offset, end - offset);
}

/** Writes a read or write request. Returns its length, or -1 when it does not fit before `end`. */
export function writeTftpRequest(
  bytes: Uint8Array,
  offset: number,
  end: number,
  opcode: number,
  filename: string,
  mode: string,
  options: TftpOptions,
): number {
  return putTexts(bytes, offset, end, opcode, [filename, mode, ...optionTexts(options)]);
}

/** Writes an option acknowledgement. Returns its length, or -1 when it does not fit before `end`. */
export function writeTftpOack(bytes: Uint8Array, offset: number, end: number, options: TftpOptions): number {
  return putTexts(bytes, offset, end, TFTP_OACK, optionTexts(options));
}

function optionTexts(options: TftpOptions): string[] {
  const texts: string[] = [];
  if (options.blockBytes >= 0) texts.push('blksize', String(options.blockBytes));
  if (options.timeoutSeconds >= 0) texts.push('timeout', String(options.timeoutSeconds));
  if (options.transferBytes >= 0) texts.push('tsize', String(options.transferBytes));
  if (options.windowBlocks >= 0) texts.push('windowsize', String(options.windowBlocks));
  return texts;
}

function putTexts(bytes: Uint8Array, offset: number, end: number, opcode: number, texts: string[]): number {
  const length = texts.reduce((sum, text) => sum + text.length + 1, 2);
  if (length > end - offset) return -1;
  putU16be(bytes, offset, opcode);
  let at = offset + 2;
  for (const text of texts) {
    at += putLatin1(bytes, at, text);
    bytes[at++] = 0;
  }
  return length;
}

/** Writes the header of a data block; the payload goes behind it. Returns 4. */
export function writeTftpData(bytes: Uint8Array, offset: number, block: number): number {
  putU16be(bytes, offset, TFTP_DATA);
  putU16be(bytes, offset + 2, block);
  return TFTP_HEADER_BYTES;
}

/** Writes an acknowledgement. Returns 4. */
export function writeTftpAck(bytes: Uint8Array, offset: number, block: number): number {
  putU16be(bytes, offset, TFTP_ACK);
  putU16be(bytes, offset + 2, block);
  return TFTP_HEADER_BYTES;
}

/** Writes an error. Returns its length: the text and 5 bytes. */
export function writeTftpError(bytes: Uint8Array, offset: number, code: number, text: string): number {
  putU16be(bytes, offset, TFTP_ERROR);
  putU16be(bytes, offset + 2, code);
  putLatin1(bytes, offset + TFTP_HEADER_BYTES, text);
  bytes[offset + TFTP_HEADER_BYTES + text.length] = 0;
  return TFTP_HEADER_BYTES + text.length + 1;
}
