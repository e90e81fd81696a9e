// A chat in a terminal, or a program's hands with --json: one JSON object a line, both ways.
//
//   node chat.js --gateway 127.0.0.1:50051 --profile ~/.whimbrel-node/alice alice bob
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { Device } from './device.js';
import { Store } from './store.js';

const { values: options, positionals: [handle, peer] } = parseArgs({
  allowPositionals: true,
  options: {
    gateway: { type: 'string', multiple: true, default: ['127.0.0.1:50051'] },
    profile: { type: 'string' },
    after: { type: 'string', default: '0' }, // with --json: show what was kept after this cursor
    json: { type: 'boolean', default: false },
  },
});
if (!handle || !options.profile || (!peer && !options.json)) {
  console.error('usage: node chat.js [--gateway HOST:PORT]... --profile DIR [--json] HANDLE [PEER]');
  process.exit(2);
}

const store = new Store(join(options.profile, 'store'));
const device = new Device(store, options.gateway);
const users = new Map(); // by handle

async function userOf(name) {
  if (!users.has(name)) users.set(name, await device.account.lookUp(name));
  return users.get(name);
}

const tell = options.json
  ? (event, what) => process.stdout.write(`${JSON.stringify({ event, ...what })}\n`)
  : (event, what) => SHOWN[event]?.(what);

const SHOWN = {
  online: () => console.log('· online'),
  offline: ({ reason }) => console.log(`· offline: ${reason ?? 'reconnecting'}`),
  message: ({ chat, text, kind }) =>
    console.log(`${chat === users.get(peer) ? peer : chat.slice(0, 8)}: ${text ?? `(${kind})`}`),
  refused: ({ reason }) => console.log(`· not sent: ${reason}`),
  identity: ({ user }) => console.log(`· ${user.slice(0, 8)} has another identity key: compare safety numbers`),
};

for (const event of ['online', 'offline', 'message', 'accepted', 'refused', 'receipt', 'identity', 'caughtUp']) {
  device.on(event, (what) => tell(event, what));
}
device.on('trouble', (error) => console.error(error.message));
if (!options.json) device.on('message', ({ chat, seq }) => device.read(chat, seq));

await device.register(handle);
const running = device.run();
running.catch((error) => {
  console.error(error.message);
  process.exit(1);
});
if (options.json) {
  tell('registered', device.account.self);
  device.kept(Number(options.after)).forEach((message) => tell('message', message));
}

for await (const line of createInterface({ input: process.stdin })) {
  if (options.json) await obey(JSON.parse(line));
  else if (line.trim()) await device.send(await userOf(peer), line);
}
device.close();
await running;
store.close();

async function obey({ send, to, text, read, upTo }) {
  if (send) tell('queued', { name: send, id: await device.send(await userOf(to), text) });
  if (read) await device.read(read, upTo);
}
