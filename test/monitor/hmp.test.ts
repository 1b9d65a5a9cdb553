/** The prompt: commands, completion, and the editor key by key. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LineEditor } from '../../src/monitor/hmp/line-editor.ts';
import { splitWords } from '../../src/monitor/hmp/run.ts';
import { type TestClient, TestMonitor } from './lib.ts';

describe('the prompt', () => {
  let test: TestMonitor;
  let client: TestClient;

  beforeEach(async () => {
    test = new TestMonitor();
    client = test.prompt();
    await test.settle();
    client.text();
  });
  afterEach(async () => await test.close());

  /** Types a line; returns what is printed before the next prompt. */
  const type = async (line: string): Promise<string> => {
    client.send(`${line}\n`);
    await test.settle();
    const text = client.text();
    expect(text.endsWith('(netemu) ')).toBe(true);
    return text.slice(0, -'(netemu) '.length);
  };

  it('greets, and answers line by line', async () => {
    const other = test.prompt();
    await test.settle();
    expect(other.text()).toBe("netemu 0.0.0 monitor - type 'help' for more information\n(netemu) ");
    expect(await type('info status')).toBe('VM status: running\n');
    expect(await type('')).toBe('');
    expect(await type('nonsense')).toBe("unknown command: 'nonsense'\n");
  });

  it('runs several lines that come at once, one after the other', async () => {
    client.send('netdev_add user,id=n0\ndevice_add e1000,id=e0,netdev=n0\ninfo network\n');
    await test.settle();
    expect(client.text()).toBe(
      '(netemu) (netemu) e0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n' +
        ' \\ n0: index=0,type=user,net=10.0.2.0,restrict=off\n(netemu) ',
    );
  });

  it('shows hubs, filters, chardevs and properties', async () => {
    await type('netdev_add user,id=n0');
    await type('netdev_add hubport,id=h0,hubid=0,netdev=n0');
    await type('netdev_add hubport,id=h1,hubid=0');
    await type('device_add e1000,id=e0,netdev=h1');
    await type('object_add filter-netem,id=f,netdev=h1,delay=5');
    expect(await type('info network')).toBe(
      'hub 0\n \\ h0: n0: index=0,type=user,net=10.0.2.0,restrict=off\n' +
        ' \\ h1: e0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n',
    );
    await type('chardev-add ringbuf,id=r');
    expect(await type('ringbuf_write r "two words"')).toBe('');
    expect(await type('ringbuf_read r 100')).toBe('two words\n');
    expect(await type('info chardev')).toBe('r: filename=ringbuf\n');
    expect(await type('info qtree')).toContain('  dev: e1000, id "e0"\n    netdev = "h1"\n');
    expect(await type('qom-get f delay')).toBe('"5ms"\n');
    expect(await type('qom-set f delay 7ms')).toBe('');
    expect(await type('qom-get f delay')).toBe('"7ms"\n');
    expect(await type('qom-list /machine')).toBe(
      'type (string)\nperipheral (child<container>)\nperipheral-anon (child<container>)\n',
    );
  });

  it('tells what it expected', async () => {
    expect(await type('netdev_del')).toContain('Try "help netdev_del" for more information\n');
    expect(await type('netdev_del a b')).toContain('extraneous characters at the end of line\n');
    expect(await type('netdev_del a')).toBe("Error: Device 'a' not found\n");
    expect(await type('help netdev_del')).toBe('netdev_del id -- remove a host network device\n');
    expect(await type('help')).toContain('info [topic] -- show what is going on\n');
  });

  it('stops and ends the program', async () => {
    await type('stop');
    expect(await type('info status')).toBe('VM status: paused\n');
    await type('c');
    expect(await type('info status')).toBe('VM status: running\n');
    await type('q');
    expect(test.quits).toBe(1);
  });

  it('a client that never reads is not read from', async () => {
    client.channel.room = 0;
    for (let i = 0; i < 50; i++) client.send('help\n');
    await test.settle();
    expect(client.channel.unread).toBeGreaterThan(0);
    await client.allow(Number.POSITIVE_INFINITY);
    await test.settle();
    expect(client.channel.unread).toBe(0);
    expect(client.text().split('(netemu) ')).toHaveLength(51);
  });
});

describe('words', () => {
  it('are separated by blanks, and kept together by quotes', () => {
    expect(splitWords('a  "b c" "d\\"e" f"g')).toEqual(['a', 'b c', 'd"e', 'f"g']);
  });
});

/** A terminal that understands what the editor draws with. */
class Terminal {
  readonly lines: string[] = [];
  ends = 0;
  #row: string[] = [];
  #column = 0;
  readonly editor: LineEditor;

  constructor(words: readonly string[] = []) {
    this.editor = new LineEditor({
      prompt: '> ',
      echo: true,
      write: (text) => this.#draw(text),
      entered: (line) => this.lines.push(line),
      ended: () => this.ends++,
      complete: (text) => words.filter((word) => word.startsWith(/\S*$/.exec(text)![0])),
    });
    this.editor.prompt();
  }

  type(keys: string): void {
    for (let rest = keys; rest !== ''; ) {
      const before = this.lines.length;
      rest = rest.slice(this.editor.type(rest));
      if (this.lines.length > before) this.editor.prompt();
    }
  }

  /** The row with the cursor, which is marked. */
  get shown(): string {
    const cells = Array.from(
      { length: Math.max(this.#row.length, this.#column) },
      (_, i) => this.#row[i] ?? ' ',
    );
    cells.splice(this.#column, 0, '|');
    return cells.join('');
  }

  #draw(text: string): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
    for (const [part, count, what] of text.matchAll(/\x1b\[(\d*)([A-Z])|[^\x1b]/gsu)) {
      if (part === '\n') {
        this.#row = [];
        this.#column = 0;
      } else if (what === 'D') this.#column -= Number(count);
      else if (what === 'C') this.#column += Number(count);
      else if (what === 'K') this.#row.length = this.#column;
      else if (what === undefined) this.#row[this.#column++] = part;
    }
  }
}

describe('the line editor', () => {
  it.each([
    ['typing', 'info', '> info|'],
    ['backspace', 'infx\x7fo', '> info|'],
    ['left and insert', 'ifo\x1b[D\x1b[Dn', '> in|fo'],
    ['home, delete, end', 'xinfo\x1b[H\x1b[3~\x1b[F!', '> info!|'],
    ['Ctrl-A and Ctrl-K', 'gone\x01\x0b', '> |'],
    ['Ctrl-U before the cursor', 'a b c\x1b[D\x15', '> |c'],
    ['Ctrl-W takes a word', 'set_link e0 off\x17', '> set_link e0 |'],
    ['Ctrl-D in a line deletes', 'ab\x02\x04', '> a|'],
    ['characters of two units', '🙂x\x1b[D\x7f', '> |x'],
    ['unknown keys are ignored', 'a\x1b[99~\x1bOPb', '> ab|'],
  ])('%s', (_, keys, shown) => {
    const terminal = new Terminal();
    terminal.type(keys);
    expect(terminal.shown).toBe(shown);
  });

  it('enters lines, and CR LF is one end', () => {
    const terminal = new Terminal();
    terminal.type('one\r\ntwo\nthree\r');
    expect(terminal.lines).toEqual(['one', 'two', 'three']);
  });

  it('recalls lines, and the one that was begun', () => {
    const terminal = new Terminal();
    terminal.type('one\ntwo\ndraft\x1b[A');
    expect(terminal.shown).toBe('> two|');
    terminal.type('\x1b[A\x1b[A');
    expect(terminal.shown).toBe('> one|');
    terminal.type('\x0e\x0e');
    expect(terminal.shown).toBe('> draft|');
    terminal.type('\x10!\n');
    expect(terminal.lines.at(-1)).toBe('two!');
  });

  it('completes as far as it is clear, and then lists', () => {
    const terminal = new Terminal(['netdev_add', 'netdev_del', 'info']);
    terminal.type('i\t');
    expect(terminal.shown).toBe('> info |');
    terminal.type('\x15n\t');
    expect(terminal.shown).toBe('> netdev_|');
    terminal.type('\t');
    expect(terminal.shown).toBe('> netdev_|');
    terminal.type('d\t');
    expect(terminal.shown).toBe('> netdev_del |');
  });

  it('ends at Ctrl-D on an empty line, and takes no endless one', () => {
    const terminal = new Terminal();
    terminal.type('\x04');
    expect(terminal.ends).toBe(1);
    terminal.type(`${'x'.repeat(10_000)}\n`);
    expect(terminal.lines[0]).toHaveLength(4096);
  });
});
