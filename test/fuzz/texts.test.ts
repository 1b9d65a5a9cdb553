/** Text from users and monitors: command lines, QMP. Whatever it says, the answer is an OptionError or an error reply, and the next one is understood. */
import { expect, it } from 'vitest';
import { formatCliError, parseCommandLine } from '../../src/config/commandline.ts';
import { OptionError } from '../../src/core/errors.ts';
import { JsonStream } from '../../src/monitor/json-stream.ts';
import { TestMonitor } from '../monitor/lib.ts';
import { boundMemory, commandLines, fuzz, qmpTexts } from './lib.ts';

boundMemory();

const decoder = new TextDecoder();

it('hardening: a command line of any words is understood or refused in one line', async () => {
  await fuzz(commandLines(), 3000, (bytes) => {
    const argv = decoder.decode(bytes).split('\n');
    try {
      const line = parseCommandLine(argv);
      if (line.action === 'run') expect(line.declarations.length).toBeLessThanOrEqual(argv.length);
    } catch (error) {
      expect(error).toBeInstanceOf(OptionError);
      expect(formatCliError(error as OptionError)).toMatch(/^netemu: .+$/);
    }
  });
});

/** What a reader makes of these bytes, given to it in pieces of so many. */
function readings(bytes: Uint8Array, piece: number): string[] {
  const stream = new JsonStream();
  const found: string[] = [];
  for (let from = 0; from < bytes.length; from += piece) {
    const to = Math.min(bytes.length, from + piece);
    for (let at = from; at < to; at = stream.position) {
      const outcome = stream.push(bytes, at, to);
      if (outcome === 'more') break;
      found.push(outcome === 'value' ? JSON.stringify(stream.value) : `error ${stream.error}`);
      // A number ends before the byte that ends it: that one is read again, once.
      expect(found.length).toBeLessThanOrEqual(2 * bytes.length);
    }
  }
  return found;
}

it('hardening 53: JSON is read the same however it is cut', async () => {
  await fuzz(qmpTexts(), 2000, (bytes) => {
    const whole = readings(bytes, bytes.length || 1);
    for (const piece of [1, 3, 64]) expect(readings(bytes, piece)).toEqual(whole);
    for (const one of whole) if (!one.startsWith('error')) expect(() => JSON.parse(one)).not.toThrow();
  });
});

it('hardening 53: a monitor answers whatever it is sent, none of it an internal error, and goes on', async () => {
  await fuzz(qmpTexts(), 150, async (bytes) => {
    const test = new TestMonitor();
    const client = await test.client();
    client.send(decoder.decode(bytes));
    for (let i = 0; i < 12; i++) {
      for (const { error } of await client.messages())
        if (error !== undefined) expect((error as { desc: string }).desc).not.toBe('internal error');
    }
    client.send('\n"\n]}\n{"execute":"query-name","id":"still there"}\n');
    expect((await client.messages()).at(-1)).toMatchObject({ id: 'still there', return: { name: 'test' } });
    await test.close();
  });
});
