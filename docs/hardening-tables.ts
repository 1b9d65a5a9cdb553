/**
 * The tables of docs/hardening.md: each numbered case of bad input, and each load and fault, with the tests whose names carry it. A test
 * fails for a case without one, and for a test on the page that is gone.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** By number, what is sent and what must come of it. */
const CASES: readonly string[] = [
  'e1000 head or tail outside the ring: one lap at most',
  'transmit descriptors with absurd mixes of fields: dropped, written back',
  'ring of length 0, or no multiple of 128: the queue is off',
  'rtl8139 C+ ring all of OWN: 64 descriptors a pass, then others have their turn',
  'descriptors without bytes that say more follows: they count as progress',
  'receive pointers inverted or out of the buffer: masked',
  'a frame put together past the maximum: dropped whole',
  'frames that are too long for RCTL, or for any buffer: dropped',
  'frames of 0, 1, 13 and 59 bytes, also in loopback: padded in one place',
  'loopback from transmit to receive: queued, no recursion',
  'DMA that points at registers: reaches RAM only',
  'DMA across the end, a hole or 2^64: all or nothing',
  'offloads with lying IP and TCP lengths: every read is checked',
  'a VLAN tag inserted in loopback: the length is reckoned anew',
  'sizes beyond 2^31, sums that overflow: refused over 64 KiB and headers',
  'lengths that would underflow: checked before subtracting',
  'header length below 5 words or past the end: no offload',
  'segment size 0: sent unsegmented',
  'too many fragments: dropped',
  'bytes never written: never seen by a guest',
  'accesses of any size and alignment: defined values',
  'reset, unplug and closing within callbacks, ten thousand times: nothing leaks',
  'malformed saved state: refused, nothing changed',
  'virtqueue chains that loop or leave the ring: the device needs a reset',
  'more available than the ring holds: refused',
  'notifications for queues that are not: ignored, counted',
  'a queue changed while it runs: frozen at enable',
  'indirect tables that change, nest or lie: copied once, then checked',
  'receive buffers smaller than the header: given back',
  'a merged frame that hits a bad address: nothing leaks',
  'header length by negotiated features: derived in one place',
  'features acknowledged that were not offered: masked first',
  'RSS table and index out of range: change nothing',
  'MAC table counts that overflow: capped, flagged',
  'VLAN ids over 4095, tag type in a runt: length before field',
  'a flood without receive buffers: dropped, and passes again',
  'packed ring: bad address in a batch, header over three descriptors: each checked',
  'IP reassembly with overlaps, too long, too many: bounded, timed out',
  'UDP shorter than its header: dropped',
  'short BOOTP and DHCP, bad options: dropped',
  'short TFTP, large block size, abandoned session: clamped, expired',
  'TFTP names that lead out, links, devices: refused',
  'payloads of FTP, IRC, ident: never rewritten',
  'short ARP and NDP: dropped',
  'ICMP lengths that lie: dropped; the host’s address never leaks',
  'a flow that dies with answers queued: model-based',
  'UDP from 0.0.0.0 and port 0: dropped',
  'sequence numbers and ports: by keyed hash',
  '60 KB of DNS with 10,000 questions: forwarded as bytes',
  'framed streams with lengths of 0, too much, split: the peer is closed',
  'L2TPv3 with wrong session, cookie, type, length: dropped, counted',
  'interface and bridge names too long or leading elsewhere: refused',
  'JSON: depth, size, encoding; any request: an error reply, bounded memory',
  'monitor clients that never read, are a thousand, vanish: bounded, counted',
  'vhost-user: sizes, counts, descriptors that lie: checked, every descriptor closed',
  'a memory file cut short after it was mapped: reads as zeros',
  'vfio-user: short, long, wrapping, overlapping: an error reply',
  'a jail’s path is a symbolic link: refused',
];

/** Loads and faults with the tests that show them; each test's name as it stands in the file. */
const LOADS: readonly (readonly [what: string, file: string, name: string])[] = [
  ['ended by a signal in mid-transfer', 'cli/faults.test.ts', 'in mid-transfer ends it with status 0'],
  ['a second signal', 'cli/faults.test.ts', 'a second signal ends it at once'],
  ['killed: the capture can be read', 'cli/faults.test.ts', 'SIGKILL leaves a capture'],
  ['disk full', 'cli/faults.test.ts', 'a full disk ends the capture'],
  ['no descriptors left, process', 'cli/faults.test.ts', 'without descriptors left'],
  ['no descriptors left, accept', 'host-io/process.test.ts', 'without descriptors, accept says so once'],
  [
    'no ports, descriptors, memory for a new flow',
    'backends/user/load.test.ts',
    'for a new flow resets that one',
  ],
  ['the clock jumps', 'backends/user/load.test.ts', 'a clock that jumps by a day'],
  ['EAGAIN, ENOBUFS, ENETDOWN on send', 'backends/no-room.test.ts', 'are lost after eight tries'],
  ['1,000 add and remove cycles of each backend', 'backends/cycles.test.ts', 'Object.keys(KINDS)'],
  ['10,000 random operations on the graph', 'monitor/commands.test.ts', '10,000 random operations'],
  ['1,000 monitor clients', 'chardev/chardev.test.ts', 'of 1,000 clients 16 are served'],
  ['10,000 flows', 'peers/user-load.test.ts', 'none is lost, all are open together'],
  ['a slow reader on the host', 'peers/user-load.test.ts', 'on the host stops the sender in the namespace'],
];

interface Found {
  readonly file: string;
  readonly name: string;
}

const NAME = /(['"`])((?:(?!\1).)*?hardening (\d+(?:, \d+)*)\b(?:(?!\1).)*)/g;

/** By number, the tests whose names carry it. */
export function testsByNumber(folder: string): Map<number, Found[]> {
  const found = new Map<number, Found[]>();
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.test.ts'),
  );
  for (const file of files.sort()) {
    for (const [, , name, numbers] of readFileSync(join(folder, file), 'utf8').matchAll(NAME)) {
      for (const number of numbers!.split(', ').map(Number)) {
        const list = found.get(number) ?? [];
        list.push({ file, name: name! });
        found.set(number, list);
      }
    }
  }
  return found;
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** A line for each case: the first test of each file. */
export function caseTable(folder: string): string {
  const found = testsByNumber(folder);
  const rows = CASES.map((what, i) => {
    const first = new Map<string, string>();
    for (const { file, name } of found.get(i + 1) ?? []) if (!first.has(file)) first.set(file, name);
    const tests = [...first].map(([file, name]) => `\`${file}\`: ${cell(name)}`);
    if (tests.length === 0) throw new Error(`hardening ${i + 1} has no test: ${what}`);
    return `| ${i + 1} | ${cell(what)} | ${tests.join('<br>')} |`;
  });
  for (const number of found.keys()) {
    if (number < 1 || number > CASES.length)
      throw new Error(`a test is called hardening ${number}: there is no such case`);
  }
  return ['| # | input and what comes of it | tests (under `test/`) |', '| --- | --- | --- |', ...rows].join(
    '\n',
  );
}

/** What the page says, as number, file and name. */
export function claims(
  page: string,
): { readonly number: number; readonly file: string; readonly name: string }[] {
  return [...page.matchAll(/^\| (\d+) \|[^|]*\| (.*) \|$/gm)].flatMap(([, number, tests]) =>
    tests!.split('<br>').map((text) => {
      const [, file, name] = /^`(.*?)`: (.*)$/.exec(text)!;
      return { number: Number(number), file: file!, name: name!.replaceAll('\\|', '|') };
    }),
  );
}

export function loadTable(folder: string): string {
  const rows = LOADS.map(([what, file, name]) => {
    if (!readFileSync(join(folder, file), 'utf8').includes(name))
      throw new Error(`${file} has no test '${name}' (${what})`);
    return `| ${what} | \`${file}\` |`;
  });
  return ['| load or fault | tests (under `test/`) |', '| --- | --- |', ...rows].join('\n');
}

/** `page` with both tables in their places, between their marks. */
export function withTables(page: string, folder: string): string {
  const put = (text: string, mark: string, table: string): string => {
    const [begin, end] = [`<!-- ${mark} -->`, `<!-- end of ${mark} -->`];
    const from = text.indexOf(begin);
    const to = text.indexOf(end);
    if (from < 0 || to < from) throw new Error(`docs/hardening.md has no place for the ${mark}`);
    return `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`;
  };
  return put(put(page, 'cases', caseTable(folder)), 'loads', loadTable(folder));
}
