/** Which files a command line leaves within reach of a sandboxed netemu. */
import { expect, it } from 'vitest';
import { placesOf, systemPlaces } from '../../src/cli/sandbox.ts';
import { parseCommandLine } from '../../src/config/commandline.ts';

function places(...argv: string[]): string[] {
  const line = parseCommandLine(argv);
  if (line.action !== 'run') throw new Error(line.action);
  return placesOf(line.declarations).map(({ path, may }) => `${may} ${path}`);
}

it.each<[argv: string[], places: string[]]>([
  [['--netdev', 'user,id=n,tftp=/srv/tftp,bootfile=x'], ['read /srv/tftp']],
  [
    ['--netdev', 'user,id=n,hostfwd=unix:/run/a/s-:22,guestfwd=tcp:10.0.2.9:1-unix:/run/b/t'],
    ['bind /run/a', 'bind /run/b'],
  ],
  [['--netdev', 'user,id=n,guestfwd=tcp:10.0.2.9:1-cmd:/bin/cat'], []],
  [['--netdev', 'stream,id=n,server=on,addr.type=unix,addr.path=/run/a/s'], ['bind /run/a']],
  [['--netdev', 'stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port=1'], []],
  [
    ['--netdev', 'dgram,id=n,local.type=unix,local.path=/run/a/l,remote.type=unix,remote.path=/run/b/r'],
    ['bind /run/a'],
  ],
  [
    ['--netdev', 'vde,id=n,sock=/run/vde.ctl'],
    ['bind /run/vde.ctl', 'bind /run'],
  ],
  [['--netdev', 'netmap,id=n,ifname=vale0:1,devname=/dev/nm'], ['drive /dev/nm']],
  [['--device', 'e1000,romfile=/roms/a'], ['read /roms']],
  [
    ['--chardev', 'file,id=c,path=/var/a/out,input-path=/var/b/in'],
    ['write /var/a', 'read /var/b'],
  ],
  [['--chardev', 'pipe,id=c,path=/var/p/pipe'], ['write /var/p']],
  [['--chardev', 'null,id=c'], []],
  [['--qmp', 'unix:/run/q/s,server=on,wait=off', '--monitor', 'stdio'], ['bind /run/q']],
  [['--metrics', 'unix:/run/m/s', '--metrics', ':9100'], ['bind /run/m']],
  [
    ['--netdev', 'user,id=n', '--object', 'filter-dump,id=d,netdev=n,file=/var/log/a.pcap'],
    ['write /var/log'],
  ],
  [['--netdev', 'user,id=n', '--object', 'filter-hook,id=d,netdev=n,module=/opt/h/h.mjs'], ['read /opt/h']],
  [['--guest', 'probe,put=http://10.0.2.2/,file=/data/up'], ['read /data']],
  [['--net', 'user,tftp=/srv/a', '--net', 'nic,model=e1000'], ['read /srv/a']],
  [
    ['--qtest', 'unix:/run/t/s', '--qtest-log', '/var/log/q'],
    ['bind /run/t', 'write /var/log'],
  ],
])('%j', (argv, expected) => {
  expect(places(...argv)).toEqual(expected);
});

it('takes paths from the folder it was started in, each place once', () => {
  expect(places('--chardev', 'file,id=a,path=x', '--chardev', 'file,id=b,path=y')).toEqual([
    `write ${process.cwd()}`,
  ]);
});

it('names no folder of secrets or of everybody', () => {
  const system = systemPlaces().map(({ path }) => path);
  for (const place of ['/', '/etc', '/home', '/root', '/var', '/tmp', '/dev', '/run'])
    expect(system).not.toContain(place);
  expect(systemPlaces().filter(({ may }) => may === 'write' || may === 'bind')).toEqual([]);
});

it.each([
  ['on', { on: true, files: 'auto', read: [], write: [] }],
  ['off', { on: false, files: 'auto', read: [], write: [] }],
  ['on,files=off', { on: true, files: 'off', read: [], write: [] }],
  ['on,read=/a,read=/b,,c,write=/d', { on: true, files: 'auto', read: ['/a', '/b,c'], write: ['/d'] }],
])('reads --sandbox %s', (argument, sandbox) => {
  expect(parseCommandLine(['--sandbox', argument])).toMatchObject({
    declarations: [{ kind: 'sandbox', sandbox }],
  });
});

it.each([
  ['maybe', "Parameter 'sandbox' expects 'on' or 'off'"],
  ['off,read=/a', "Parameter 'sandbox' expects 'on' or 'off'"],
  ['on,files=maybe', "Parameter 'files' does not accept value 'maybe'"],
  ['on,raed=/a', "Invalid parameter 'raed'"],
])('refuses --sandbox %s', (argument, message) => {
  expect(() => parseCommandLine(['--sandbox', argument])).toThrow(message);
});
