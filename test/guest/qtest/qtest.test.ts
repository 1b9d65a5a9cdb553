import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LINE_LIMIT_BYTES } from '../../../src/guest/qtest/session.ts';
import { parseBase64, parseNumber, toBase64 } from '../../../src/guest/qtest/values.ts';
import { BAR, QtestRig } from './rig.ts';

let rig: QtestRig;
beforeEach(async () => {
  rig = new QtestRig();
  await rig.addNic(3);
  rig.serve();
});
afterEach(() => rig.close());

const register = (offset: number): string => `0x${(BAR + offset).toString(16)}`;
const TCTL = 0x400;
const TDBAL = 0x3800;
const TDT = 0x3818;
const ICR = 0xc0;
const ICS = 0xc8;
const IMS = 0xd0;

describe('qtest memory', () => {
  it('reads and writes RAM in every way, little-endian', () => {
    expect(
      rig.run(
        'endianness',
        'writeq 0x1000 0x0807060504030201',
        'readb 0x1000',
        'readw 0x1001',
        'readl 0x1002',
        'readq 0x1000',
        'read 0x1000 4',
        'write 0x1000 4 0xAAbb',
        'read 0x1000 0x5',
        'memset 0x1001 2 0x5a',
        'b64read 0x1000 4',
        'b64write 0x2000 3 AQID',
        'readl 8192',
        'writel 010000 -1',
        'readl 0x1000',
        'writeb 0x1000 0x1fe',
        'readl 0x1000',
      ),
    ).toEqual([
      'OK little',
      'OK',
      'OK 0x0000000000000001',
      'OK 0x0000000000000302',
      'OK 0x0000000006050403',
      'OK 0x0807060504030201',
      'OK 0x01020304',
      'OK',
      'OK 0xaabb000005',
      'OK',
      'OK qlpaAA==',
      'OK',
      'OK 0x0000000000030201',
      'OK',
      'OK 0x00000000ffffffff',
      'OK',
      'OK 0x00000000fffffffe',
    ]);
  });

  it('has nothing in the hole, behind RAM and beyond 4 GiB; accesses cross the edges', () => {
    const answers = rig.run(
      'memset 0x9fff0 0x60020 0x77',
      'read 0x9fffe 4',
      'read 0xffffe 4',
      'write 0xfffffe 4 0x01020304',
      'read 0xfffffe 4',
      'readq 0x100000000',
      'writeq 0xffffffffffffffff 1',
      'readl 0xffffffffffffffff',
      'memset 0 0x1000000000 0',
      'readl 0x9fff0',
    );
    expect(answers).toEqual([
      'OK',
      'OK 0x77770000',
      'OK 0x00007777',
      'OK',
      'OK 0x01020000',
      'OK 0x0000000000000000',
      'OK',
      'OK 0x0000000000000000',
      'OK',
      'OK 0x0000000000000000',
    ]);
  });
});

describe('qtest PCI', () => {
  it('finds the bridges and the NIC by configuration mechanism #1, and nobody elsewhere', () => {
    const ids = [0x80000000, 0x80000800, 0x80001800, 0x80001000, 0x80011800, 0x1800].map((address) => {
      rig.run(`outl 0xcf8 ${address}`);
      return rig.ok('inl 0xcfc');
    });
    expect(ids).toEqual(['0x12378086', '0x70008086', '0x100e8086', '0xffffffff', '0xffffffff', '0xffffffff']);
    expect(
      rig.run('outl 0xcf8 0x80001800', 'outb 0xcf8 0x12', 'inl 0xcf8', 'inw 0xcfe', 'inb 0xcfc'),
    ).toEqual(['OK', 'OK', 'OK 0x80001800', 'OK 0x100e', 'OK 0x0086']);
  });

  it('decodes BARs while they are enabled, in memory and in I/O', () => {
    expect(rig.ok(`readl ${register(8)}`)).toBe('0x0000000000000000');
    rig.setUp(3, 11);
    const status = rig.ok(`readl ${register(8)}`);
    expect(Number(status) & 0xff).toBe(0x83);
    // The same register through IOADDR and IODATA, and by bytes.
    rig.run('outl 0xc000 8');
    expect(Number(rig.ok('inl 0xc004'))).toBe(Number(status));
    expect(Number(rig.ok(`readb ${register(9)}`))).toBe((Number(status) >> 8) & 0xff);
    expect(rig.ok(`read ${register(8)} 4`)).toMatch(/^0x83/);
    rig.run('outl 0xcf8 0x80001804', 'outw 0xcfc 4');
    expect(rig.ok(`readl ${register(8)}`)).toBe('0x0000000000000000');
    expect(rig.ok('inl 0xc004')).toBe('0xffffffff');
  });

  it('a BAR over RAM hides behind it', () => {
    rig.setUp(3, 11);
    rig.run('outl 0xcf8 0x80001810', 'outl 0xcfc 0x200000', 'writel 0x200008 5');
    expect(rig.ok('readl 0x200008')).toBe('0x0000000000000005');
  });

  it('refuses a place that is taken', () => {
    expect(() => rig.machine.platform.slot({ slot: 3, fn: 0 })).toThrow(/in use/);
    expect(rig.machine.platform.slot().slot).toBe(2);
    expect(rig.machine.platform.slot().slot).toBe(4);
  });
});

describe('qtest interrupts', () => {
  it('tells of lines that are listened to, before the answer of the command that moved them', () => {
    rig.setUp(3, 11);
    expect(rig.run(`writel ${register(IMS)} 4`, `writel ${register(ICS)} 4`)).toEqual(['OK', 'OK']);
    rig.run(`readl ${register(ICR)}`);
    expect(rig.run('irq_intercept_in nothing', 'irq_intercept_out ioapic', 'irq_intercept_in piix3')).toEqual(
      ['FAIL Unknown device', 'FAIL No intercepts installed', 'FAIL No intercepts installed'],
    );
    expect(rig.run('irq_intercept_in ioapic', 'irq_intercept_in ioapic', 'irq_intercept_out piix3')).toEqual([
      'OK',
      'OK',
      'FAIL IRQ intercept already enabled',
    ]);
    expect(rig.run(`writel ${register(ICS)} 4`)).toEqual(['IRQ raise 11', 'OK']);
    expect(rig.run(`readl ${register(ICR)}`).sort()).toEqual(
      ['IRQ lower 11', 'OK 0x0000000000000004'].sort(),
    );
  });

  it('follows the routing registers, and a line that two functions share', async () => {
    await rig.addNic(7);
    rig.setUp(3, 11);
    rig.run('irq_intercept_in ioapic', `readl ${register(ICR)}`, `writel ${register(IMS)} 4`);
    expect(rig.run(`writel ${register(ICS)} 4`)).toEqual(['IRQ raise 11', 'OK']);
    // Slot 7 shares PIRQ C with slot 3.
    const second = 0xe0100000;
    rig.run('outl 0xcf8 0x80003810', `outl 0xcfc ${second}`, 'outl 0xcf8 0x80003804', 'outl 0xcfc 7');
    expect(rig.run(`writel ${second + IMS} 4`, `writel ${second + ICS} 4`)).toEqual(['OK', 'OK']);
    expect(rig.run(`readl ${register(ICR)}`)).toEqual(['OK 0x0000000000000004']);
    expect(rig.run('outl 0xcf8 0x80000862', 'outb 0xcfc 10')).toEqual([
      'OK',
      'IRQ raise 10',
      'IRQ lower 11',
      'OK',
    ]);
    expect(rig.run('outb 0xcfc 0x80')).toEqual(['IRQ lower 10', 'OK']);
  });

  it('a NIC that is unplugged lets go of its line', () => {
    rig.setUp(3, 11);
    rig.run('irq_intercept_in ioapic', `writel ${register(IMS)} 4`, `writel ${register(ICS)} 4`);
    rig.take();
    const { platform } = rig.machine;
    platform.release({ slot: 3, fn: 0 } as Parameters<typeof platform.release>[0]);
    rig.settle();
    expect(rig.take()).toEqual(['IRQ lower 11']);
    rig.network.removeDevice('nic3');
  });
});

describe('qtest time', () => {
  it('moves by clock_step and clock_set only, and fires what is due on the way', () => {
    const fired: number[] = [];
    const timer = rig.network.loop.timer(() => fired.push(rig.clock.nowNs()));
    timer.arm(1000);
    expect(rig.run('clock_step 999')).toEqual(['OK 999']);
    expect(fired).toEqual([]);
    expect(rig.run('clock_step 5000')).toEqual(['OK 5999']);
    expect(fired).toEqual([1000]);
    timer.arm(7000);
    expect(rig.run('clock_step')).toEqual(['OK 7000']);
    expect(fired).toEqual([1000, 7000]);
    // Without a timer of ours, to the next half period of the PC's own.
    expect(rig.run('clock_step', 'clock_step')).toEqual(['OK 27462700', 'OK 54925401']);
    expect(rig.run('clock_set 60000000', 'clock_set 5', 'clock_set', 'clock_step 0', 'clock_step x')).toEqual(
      [
        'OK 60000000',
        'FAIL 60000000',
        'FAIL clock_set: missing time',
        'FAIL could not advance time',
        "FAIL clock_step: bad time 'x'",
      ],
    );
  });
});

describe('qtest and a NIC', () => {
  it('a script sends a frame from a descriptor and sees it done', () => {
    rig.setUp(3, 11);
    const frame = `0x525400000002525400000001${'88b5'}${'5a'.repeat(50)}`;
    rig.run(
      `write 0x10000 ${(frame.length - 2) / 2} ${frame}`,
      'writeq 0x20000 0x10000',
      `writeq 0x20008 0x${(0x0b000000n | BigInt((frame.length - 2) / 2)).toString(16)}`,
      `writel ${register(TDBAL)} 0x20000`,
      `writel ${register(TDBAL + 8)} 128`,
      `writel ${register(TCTL)} 0x2`,
      `writel ${register(TDT)} 1`,
    );
    expect(rig.peer!.received).toHaveLength(1);
    expect(Buffer.from(rig.peer!.received[0]!).toString('hex')).toBe(frame.slice(2));
    expect(Number(rig.ok('readb 0x2000c')) & 1).toBe(1);
  });

  it('a client that leaves takes its interception along; the next finds the machine as it is', () => {
    rig.setUp(3, 11);
    rig.run('irq_intercept_in ioapic', 'writel 0x1000 7', `writel ${register(IMS)} 4`);
    rig.line.hangUp();
    rig.line.connect();
    expect(rig.run('readl 0x1000', `writel ${register(ICS)} 4`)).toEqual(['OK 0x0000000000000007', 'OK']);
    expect(rig.transcript).toContain('I CLOSED');
    expect(rig.transcript.slice(-4)).toEqual([
      'R readl 0x1000',
      'S OK 0x0000000000000007',
      `R writel ${register(ICS)} 4`,
      'S OK',
    ]);
  });
});

describe('qtest and bad clients', () => {
  it.each([
    'inl',
    'inl xyz',
    'inl 0x10000',
    'outl 0xcf8',
    'outl 0xcf8 zz',
    'readl',
    'readl 1000h',
    'readl 99999999999999999999',
    'read 0x1000',
    'read 0x1000 0',
    'read 0x1000 0x7fffffffffffffff',
    'write 0x1000 4',
    'write 0x1000 4 hello',
    'write 0x1000 4 0x123',
    'b64write 0x1000 4 AQID',
    'b64write 0x1000 3 *',
    'memset 0x1000 4',
    'memset 0xffffffffffffffff 2 1',
    'irq_intercept_in',
    'module_load x y',
    'foo',
    '',
    ' readl 0x1000',
    'readl\t0x1000',
    'READL 0x1000',
  ])('answers %j with FAIL', (line) => {
    const answers = rig.run(line);
    expect(answers).toHaveLength(1);
    expect(answers[0]).toMatch(/^FAIL/);
    expect(rig.run('endianness')).toEqual(['OK little']);
  });

  it('takes lines in any pieces, with carriage returns, and words beyond the last', () => {
    expect(rig.send('endi')).toEqual([]);
    expect(rig.send('anness\r')).toEqual([]);
    expect(rig.send('\ninl 0xcf8 more words\nreadl')).toEqual(['OK little', 'OK 0x0000']);
    expect(rig.send(' 0\n')).toEqual(['OK 0x0000000000000000']);
  });

  it('throws a line away that never ends, and goes on behind it', () => {
    const piece = new Uint8Array(1 << 24).fill(0x41);
    for (let sent = 0; sent <= LINE_LIMIT_BYTES; sent += piece.length) rig.line.arrive(piece);
    expect(rig.send('\nendianness\n')).toEqual([
      `FAIL a line is at most ${LINE_LIMIT_BYTES} bytes`,
      'OK little',
    ]);
  });

  it('stops reading from a client that does not read, and answers everything later', () => {
    rig.line.room = 10;
    const commands = 5000;
    rig.line.arrive(Uint8Array.from('read 0x1000 64\n'.repeat(commands), (c) => c.charCodeAt(0)));
    for (let i = 0; i < commands; i++) rig.line.arrive(Uint8Array.from('readb 0\n', (c) => c.charCodeAt(0)));
    rig.settle();
    expect(rig.line.unread).toBeGreaterThan(0);
    let answers = rig.take().length;
    for (let turns = 0; turns < 1000 && answers < 2 * commands; turns++) {
      rig.line.room = 1 << 16;
      rig.line.channelUser!.writable!();
      rig.settle();
      answers += rig.take().length;
    }
    expect(answers).toBe(2 * commands);
  });

  it('any lines at all do no harm', async () => {
    rig.setUp(3, 11);
    const name = fc.constantFrom(
      ...['inb', 'inl', 'outb', 'outl', 'readl', 'readq', 'writeb', 'writel', 'writeq', 'read', 'write'],
      ...['b64read', 'b64write', 'memset', 'irq_intercept_in', 'clock_step', 'clock_set', 'x'],
    );
    const place = fc.oneof(
      fc.nat(0x5fff).map((offset) => register(offset)),
      fc.constantFrom('0xcf8', '0xcfc', '0xc000', '0xc004', '0x1000', '0x9ffff', '-1', '0x', 'z', ''),
      fc.bigInt(0n, 2n ** 65n).map(String),
    );
    const value = fc.oneof(
      fc.nat(64).map(String),
      fc.constantFrom('0x80001804', '0x80001810', '7', 'ioapic', '0xffffffff', 'AQID', '', '0x0102'),
    );
    const line = fc.oneof(
      fc.tuple(name, place, value, value).map((words) => words.join(' ')),
      fc.string({ maxLength: 20 }),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 40 }), (lines) => {
        const texts = lines.map((one) => [...one].map((c) => (c === '\n' ? ' ' : c)).join(''));
        const answers = rig.run(...texts).filter((one) => !one.startsWith('IRQ '));
        expect(answers).toHaveLength(texts.length);
        for (const one of answers) expect(one).toMatch(/^(OK|FAIL)/);
      }),
      { numRuns: 150, seed: 11 },
    );
  });
});

describe('qtest values', () => {
  it('numbers are those of strtoull with base 0', () => {
    const cases: [string, bigint | null][] = [
      ['0', 0n],
      ['007', 7n],
      ['08', null],
      ['0x10', 16n],
      ['0X1f', 31n],
      ['-1', 2n ** 64n - 1n],
      ['+5', 5n],
      ['18446744073709551615', 2n ** 64n - 1n],
      ['18446744073709551616', null],
      ['', null],
      ['1e3', null],
      ['0x', null],
    ];
    for (const [text, value] of cases) expect([text, parseNumber(text)]).toEqual([text, value]);
  });

  it('base64 agrees with Node', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const text = Buffer.from(bytes).toString('base64');
        expect(toBase64(bytes)).toBe(text);
        expect(Array.from(parseBase64(text)!)).toEqual(Array.from(bytes));
      }),
    );
  });
});
