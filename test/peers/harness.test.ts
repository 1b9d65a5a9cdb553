/** The harness itself: both QEMUs boot a guest that runs steps and talks with us, and what goes wrong is told with the console. */

import { expect, test } from 'vitest';
import { runGuest, startFirmware, startGuest } from './lib/guest.ts';

test.each([
  '7.2',
  '11.1',
] as const)('QEMU %s boots a guest that runs steps, asks us things, and powers off', async (qemu) => {
  const asked: string[] = [];
  const result = await runGuest({
    qemu,
    args: ['-device', 'e1000,netdev=n0', '-netdev', 'user,id=n0'],
    files: { '/data/greeting': 'hello from a file\n' },
    host: {
      ask: (argument) => {
        asked.push(argument);
        return `answer to ${argument}`;
      },
    },
    script: {
      first: 'cat /data/greeting; host ask one two; printf "no newline at the end"',
      fails: 'echo before; exit 7',
      network:
        'modprobe e1000 && ip link set eth0 up && udhcpc -n -q -t 10 -T 1 -i eth0 && ping -c 1 10.0.2.2',
      tools:
        'iperf3 --version && ethtool --version && ip -V && tc -V && tcpdump --version && sha256sum /init',
    },
  });
  expect(result.exitCode).toBe(0);
  expect(result.ok('first')).toBe('hello from a file\nanswer to one two\nno newline at the end\n');
  expect(asked).toEqual(['one two']);
  expect(result.ok('network')).toContain('lease of 10.0.2.15');
  result.ok('tools');
  expect(() => result.ok('fails')).toThrow(
    /step fails ended with 7\n--- its output\nbefore\n[\s\S]*--- console\n[\s\S]*reboot: Power down/,
  );
  expect(() => result.ok('none')).toThrow('never came to step none');
});

test('a guest that hangs is ended, and one that asks what nobody answers', async () => {
  // A firmware that finds nothing to boot waits for ever.
  const hung = await startFirmware({ qemu: '7.2', timeoutMs: 2000 });
  await expect(hung.done).rejects.toThrow(/did not end within 2000 ms[\s\S]*--- console/);
  const asks = await startGuest({ qemu: '7.2', script: 'host nothing' });
  await expect(asks.done).rejects.toThrow('asks for nothing, which the test does not answer');
});
