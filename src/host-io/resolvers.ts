/** The host's name servers, from resolv.conf(5): read again when the file changed, as the host's own resolver library does. */

import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';

const FILE = '/etc/resolv.conf';
/** As many as the C library uses (MAXNS). */
const MAX_SERVERS = 3;

/** A function that gives the textual addresses, preferred first; the file's default (127.0.0.1) when it names none. */
export function hostResolvers(file = FILE): () => readonly string[] {
  let stamp = '';
  let servers: readonly string[] = ['127.0.0.1'];
  return () => {
    try {
      const { mtimeMs, size, ino } = statSync(file);
      const now = `${mtimeMs} ${size} ${ino}`;
      if (now !== stamp) {
        servers = parseResolvers(readFileSync(file, 'utf8'));
        stamp = now;
      }
    } catch {
      // No file: what was known last, or the default.
    }
    return servers;
  };
}

export function parseResolvers(text: string): readonly string[] {
  const found: string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, value = ''] = line.trim().split(/\s+/);
    // A zone (fe80::1%eth0) is of no use to a socket that is opened by address alone.
    if (keyword === 'nameserver' && isIP(value) !== 0 && !value.includes('%')) found.push(value);
  }
  return found.length === 0 ? ['127.0.0.1'] : found.slice(0, MAX_SERVERS);
}
