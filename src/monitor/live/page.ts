/**
 * The live page: plain HTML, style and script, served as they stand here. The script asks for /network.json four times a second while the
 * page is in view, keeps the answer before it, and shows the difference as rates. Every text from the answer is set as text, never as HTML.
 */

export const PAGE_HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>netemu</title>
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
</head>
<body>
<header><h1>netemu</h1><span id="state">connecting</span></header>
<h2>Links</h2>
<div id="graph"></div>
<h2>Rates</h2>
<table id="rates"><thead><tr><th>client</th><th>type</th><th>link</th><th>sends frames/s</th><th>sends bit/s</th>
<th>gets frames/s</th><th>gets bit/s</th><th>drops</th><th></th></tr></thead><tbody></tbody></table>
<h2>Drops</h2>
<table id="drops"><thead><tr><th>where</th><th>cause</th><th>frames</th></tr></thead><tbody></tbody></table>
<h2>Flows</h2>
<table id="flows"><thead><tr><th>netdev</th><th>protocol</th><th>state</th><th>guest</th><th>far end</th>
<th>sent</th><th>received</th></tr></thead><tbody></tbody></table>
</body>
</html>
`;

export const PAGE_ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M3 13V3l10 10V3" fill="none" stroke="#2a9d4a" stroke-width="2.5"/></svg>
`;

export const PAGE_STYLE = `:root { color-scheme: light dark; --line: #8888; --up: #2a9d4a; --down: #c0392b; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
header { display: flex; gap: 1rem; align-items: baseline; }
h1 { margin: 0; font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
.chain { display: flex; align-items: center; flex-wrap: wrap; margin: .3rem 0; }
.box { border: 1px solid var(--line); border-radius: 6px; padding: .25rem .6rem; }
.box small { opacity: .7; display: block; }
.wire { width: 3rem; height: 3px; background: var(--down); } .wire.up { background: var(--up); }
.filter { border-style: dashed; } .off { opacity: .5; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .15rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
td { font-variant-numeric: tabular-nums; }
meter { width: 6rem; }
`;

export const PAGE_SCRIPT = `'use strict';
const UPDATE_MS = 250;
let before = null;
let peak = 1;

const element = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children) made.append(child);
  return made;
};

const scaled = (value) => {
  const prefixes = ['', ' k', ' M', ' G', ' T'];
  let step = 0;
  while (value >= 999.5 && step < prefixes.length - 1) { value /= 1000; step++; }
  return value.toFixed(step === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2) + prefixes[step];
};

const box = (id, note, className = '') => element('div', 'box ' + className, id, element('small', '', note));
const wire = (up) => element('div', up ? 'wire up' : 'wire');

/** One row for each link: NIC, filters, netdev; hubs with their ports; what is plugged into nothing. */
const drawGraph = (now) => {
  const netdevs = new Map(now.netdevs.map((one) => [one.id, one]));
  const shown = new Set();
  const rows = [];
  const netdevBoxes = (netdev) => {
    shown.add(netdev.id);
    return [
      ...[...netdev.filters].reverse().flatMap((one) => [
        box(one.id, one.type, one.active ? 'filter' : 'filter off'), wire(one.active)]),
      box(netdev.id, netdev.info ? netdev.type + ' ' + netdev.info : netdev.type),
    ];
  };
  for (const nic of now.nics) {
    const chain = [box(nic.id, nic.model + ' ' + nic.mac)];
    const queue = nic.queues[0];
    const peer = netdevs.get(queue.peer);
    if (peer) chain.push(wire(queue['link-up']), ...netdevBoxes(peer));
    rows.push(element('div', 'chain', ...chain));
  }
  for (const hub of now.hubs) {
    const ports = hub.ports.flatMap((name) => {
      shown.add(name);
      const port = netdevs.get(name);
      const peer = port && port.queues[0].peer;
      if (peer) shown.add(peer);
      return [wire(port && port.queues[0]['link-up']), box(name, peer ? 'to ' + peer : 'free')];
    });
    rows.push(element('div', 'chain', box('hub ' + hub.id, 'policy ' + hub.policy), ...ports));
  }
  for (const netdev of now.netdevs) {
    if (!shown.has(netdev.id)) rows.push(element('div', 'chain', ...netdevBoxes(netdev)));
  }
  document.getElementById('graph').replaceChildren(...rows);
};

const row = (...cells) => element('tr', '', ...cells.map((cell) => element('td', '', cell)));
const fill = (id, rows) => document.querySelector('#' + id + ' tbody').replaceChildren(...rows);
const clients = (state) => [
  ...state.nics.map((one) => ({ ...one, type: one.model })),
  ...state.netdevs,
];
const sent = (one, name) => one.queues.reduce((sum, queue) => sum + queue.counters[name], 0);
const dropsOf = (counters) => Object.entries(counters).filter(([name, value]) => /drop/i.test(name) && value > 0);

const drawRates = (now) => {
  const old = new Map(before ? clients(before).map((one) => [one.id, one]) : []);
  const seconds = before ? (now.timeNs - before.timeNs) / 1e9 : 1;
  const rate = (one, name) => {
    const earlier = one && old.get(one.id);
    return earlier ? Math.max(0, sent(one, name) - sent(earlier, name)) / seconds : 0;
  };
  const all = clients(now);
  const byId = new Map(all.map((one) => [one.id, one]));
  fill('rates', all.map((one) => {
    const peer = byId.get(one.queues[0].peer);
    const bits = 8 * (rate(one, 'sentBytes') + rate(peer, 'sentBytes'));
    peak = Math.max(peak, bits);
    const meter = element('meter');
    meter.max = peak;
    meter.value = bits;
    const drops = [one, ...one.queues].flatMap(({ counters }) => dropsOf(counters)).reduce((sum, [, n]) => sum + n, 0);
    return row(one.id, one.type, one.queues.some((queue) => queue['link-up']) ? 'up' : 'down',
      scaled(rate(one, 'sentFrames')), scaled(8 * rate(one, 'sentBytes')),
      scaled(rate(peer, 'sentFrames')), scaled(8 * rate(peer, 'sentBytes')), String(drops), meter);
  }));
};

const drawDrops = (now) => {
  const rows = [];
  const add = (where, counters) => {
    for (const [name, value] of dropsOf(counters)) rows.push(row(where, name, String(value)));
  };
  for (const one of clients(now)) {
    add(one.id, one.counters);
    one.queues.forEach((queue, i) => add(one.id + ' queue ' + i, queue.counters));
    for (const filter of one.filters ?? []) add(filter.id, filter.counters);
  }
  fill('drops', rows);
};

const drawFlows = (now) => fill('flows', now.usernets.flatMap(({ netdev, flows }) => flows.map((flow) =>
  row(netdev, flow.protocol, flow.state, flow.guest + ':' + flow.guestPort, flow.remote + ':' + flow.remotePort,
    scaled(flow.fromGuestBytes) + 'B', scaled(flow.toGuestBytes) + 'B'))));

const update = async () => {
  const state = document.getElementById('state');
  try {
    if (!document.hidden) {
      const reply = await fetch('network.json', { signal: AbortSignal.timeout(5000) });
      const now = await reply.json();
      state.textContent = now.version + (now.running ? ' running' : ' stopped');
      drawGraph(now);
      drawRates(now);
      drawDrops(now);
      drawFlows(now);
      before = now;
    }
  } catch {
    state.textContent = 'not connected';
    before = null;
  }
  setTimeout(update, UPDATE_MS);
};
update();
`;
