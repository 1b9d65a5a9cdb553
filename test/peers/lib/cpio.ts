/** Writes cpio archives in the "newc" form, which Linux unpacks as its first file system (Documentation/driver-api/early-userspace/buffer-format). */

const DIRECTORY = 0o040000;
const FILE = 0o100000;
const LINK = 0o120000;
const CHARACTER_DEVICE = 0o020000;

export class CpioWriter {
  readonly #parts: Uint8Array[] = [];
  readonly #paths = new Set<string>();
  #inode = 1;

  /** A regular file; folders above it are made. */
  file(path: string, content: string | Uint8Array, mode = 0o644): void {
    this.#parents(path);
    this.#add(path, FILE | mode, typeof content === 'string' ? new TextEncoder().encode(content) : content);
  }

  link(path: string, target: string): void {
    this.#parents(path);
    this.#add(path, LINK | 0o777, new TextEncoder().encode(target));
  }

  directory(path: string, mode = 0o755): void {
    if (path === '' || this.#paths.has(path)) return;
    this.#parents(path);
    this.#add(path, DIRECTORY | mode, new Uint8Array(0));
  }

  device(path: string, major: number, minor: number): void {
    this.#parents(path);
    this.#add(path, CHARACTER_DEVICE | 0o600, new Uint8Array(0), major, minor);
  }

  has(path: string): boolean {
    return this.#paths.has(path);
  }

  /** The archive, padded so that another may follow it. */
  finish(): Uint8Array {
    this.#entry('TRAILER!!!', 0, new Uint8Array(0), 0, 0);
    return Buffer.concat(this.#parts);
  }

  #parents(path: string): void {
    const slash = path.lastIndexOf('/');
    if (slash > 0) this.directory(path.slice(0, slash));
  }

  #add(path: string, mode: number, content: Uint8Array, major = 0, minor = 0): void {
    if (this.#paths.has(path)) throw new Error(`${path} is in the archive already`);
    this.#paths.add(path);
    this.#entry(path, mode, content, major, minor);
  }

  #entry(path: string, mode: number, content: Uint8Array, major: number, minor: number): void {
    const name = new TextEncoder().encode(`${path}\0`);
    // Magic, then: inode, mode, uid, gid, links, mtime, size, device (major, minor), rdevice (major, minor), name length, check.
    const numbers = [this.#inode++, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
    const header = `070701${numbers.map((value) => value.toString(16).padStart(8, '0')).join('')}`;
    this.#parts.push(
      new TextEncoder().encode(header),
      name,
      padding(header.length + name.length),
      content,
      padding(content.length),
    );
  }
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}
