// What this device sends: kept before it is tried, encrypted once for each device, repeated with the
// same bytes until it is answered, and repaired when the mesh names other devices.
import { randomBytes } from 'node:crypto';
import { type, milliseconds, timestamp } from './mesh.js';
import * as sessions from './sessions.js';
import { Transaction } from './store.js';

const GIVE_UP_MS = 6 * 24 * 3600 * 1000; // the mesh remembers a send for 7 days
const KEEP_SENT_MS = 7 * 24 * 3600 * 1000; // for devices that could not read it
const HOLD_MS = 5_000;
const SPARE_BYTES = 4096;

const Content = type('whimbrel.content.v1.Content');
const Send = type('whimbrel.message.v1.Send');

export class Outbox {
  #store;
  #account;
  #now;
  // In the order of the calls. `wants` are the devices whose sessions are still to be opened; null
  // when the bodies are ready.
  #queue = [];

  constructor(store, account, now) {
    [this.#store, this.#account, this.#now] = [store, account, now];
    for (const key of store.keys('outbox ')) this.#queue.push(new Entry(key, store.get(key)));
    const old = store.keys('sent ').filter((key) => store.get(key).at < now() - KEEP_SENT_MS);
    store.apply(new Map(old.map((key) => [key, undefined])));
  }

  // Queue a content for an account; it goes out when the transaction is committed and `queued` is
  // called with what this returns.
  add(transaction, to, content) {
    const id = randomBytes(16);
    const number = (transaction.get('last outbox number') ?? 0) + 1;
    transaction.set('last outbox number', number);
    const key = `outbox ${String(number).padStart(15, '0')}`;
    const kept = { id, to, bodies: null, firstTriedAt: null };
    kept.content = Content.serialize({ id, ...content, to: Buffer.from(to, 'hex') });
    transaction.set(key, kept);
    return new Entry(key, kept);
  }

  queued(entry) { this.#queue.push(entry); }

  // The next send that is not encrypted yet, if one may be tried now.
  unprepared() {
    return this.#queue.find((entry) => entry.wants && entry.notBefore <= this.#now());
  }

  // Fetch the keys that an entry needs. Without the lock: it may take a while.
  async fetch(entry) {
    const wanted = entry.wants.filter(({ user, device }) => {
      const open = sessions.openDevices(this.#store, user);
      return device ? !open.has(device) : !open.size;
    });
    const fetched = [];
    for (const { user, device } of wanted) {
      fetched.push({ user, ...await this.#account.fetchKeys(user, device) });
    }
    return fetched;
  }

  // Encrypt an entry, and keep the bytes together with the sessions that made them.
  async prepare(entry, fetched) {
    const { self } = this.#account;
    const transaction = new Transaction(this.#store);
    for (const { user, identityKey, bundles } of fetched) {
      const open = sessions.openDevices(transaction, user);
      for (const bundle of bundles) {
        const isSelf = user === self.user && bundle.deviceId === self.device;
        if (isSelf || open.has(bundle.deviceId)) continue;
        await sessions.open(transaction, self, user, identityKey, bundle);
      }
    }
    const bodies = [];
    for (const user of new Set([entry.kept.to, self.user])) {
      for (const [device, registrationId] of sessions.openDevices(transaction, user)) {
        bodies.push(
          entry.bodyFor(user, device, registrationId)
          ?? await sessions.encrypt(transaction, self, user, device, entry.kept.content));
      }
    }
    const isWhole = entry.wants.every(({ user, device }) =>
      !device || bodies.some((body) => body.deviceId === device && body.userId.toString('hex') === user));
    entry.keep(transaction, { bodies });
    transaction.commit();
    entry.wants = null;
    // A device without keys cannot be written to; the mesh will name it again.
    if (!isWhole) entry.notBefore = this.#now() + HOLD_MS;
  }

  hold(entry, ms) { entry.notBefore = this.#now() + (ms ?? HOLD_MS); }

  // The frames to write now; what is in them counts as written.
  take(limits) {
    const events = [];
    const before = new Map(); // the send before, by conversation
    const held = new Set();
    let [count, bytes] = this.#flying();
    for (const entry of [...this.#queue]) {
      const { id, to } = entry.kept;
      const after = before.get(to) ?? Buffer.alloc(0);
      before.set(to, id);
      if (entry.isFlying) continue;
      const isReady = !entry.wants && entry.notBefore <= this.#now();
      const hasRoom = !count
        || (count < limits.maxOutstandingSends && bytes + entry.size <= limits.maxOutstandingBytes);
      // What comes after a message that waits would only be refused.
      if (!isReady || !hasRoom || held.has(to)) { held.add(to); continue; }
      entry.isFlying = true;
      [count, bytes] = [count + 1, bytes + entry.size];
      events.push([entry, after]);
    }
    this.#markTried(events.map(([entry]) => entry));
    return framed(events.map(([entry, after]) => entry.event(after)), limits.maxFrameBytes);
  }

  // Milliseconds until something that waits is due; undefined if nothing is.
  dueIn() {
    const waits = this.#queue.filter((entry) => !entry.isFlying && entry.notBefore > this.#now());
    return waits.length ? Math.min(...waits.map((entry) => entry.notBefore)) - this.#now() : undefined;
  }

  // The answers. Each returns the entry if it is settled.

  accepted(transaction, answer) {
    const entry = this.#find(answer);
    if (!entry) return undefined; // an answer that came twice
    const { to, content } = entry.kept;
    transaction.set(`sent ${answer.messageId.toString('hex')}`, { to, content, at: this.#now() });
    return this.#settle(transaction, entry);
  }

  rejected(transaction, answer) {
    const entry = this.#find(answer);
    if (!entry) return undefined;
    if (answer.retryAfter) {
      entry.isFlying = false;
      entry.notBefore = this.#now() + milliseconds(answer.retryAfter);
      return undefined;
    }
    return this.#settle(transaction, entry);
  }

  // Nothing was accepted: the same send goes out again with other bodies.
  mismatched(transaction, { clientMessageId, missing, extra, stale }) {
    const entry = this.#find({ clientMessageId });
    if (!entry) return;
    const named = (device) => ({ user: device.userId.toString('hex'), device: device.deviceId });
    for (const { user, device } of extra.map(named)) sessions.putAway(transaction, user, device);
    for (const { user, device } of stale.map(named)) {
      const open = sessions.openDevices(transaction, user);
      // Another send may have opened the new session already.
      if (entry.bodyFor(user, device, open.get(device))) sessions.putAway(transaction, user, device);
    }
    entry.isFlying = false;
    entry.wants = [...missing, ...stale].map(named);
  }

  // Send anew what a device could not read: with its request it has opened a new session. If `to`
  // is given, only what was written to that account.
  resend(transaction, to, messageIds) {
    return messageIds.flatMap((messageId) => {
      const sent = transaction.get(`sent ${messageId.toString('hex')}`);
      if (!sent || (to && sent.to !== to)) return [];
      return [this.add(transaction, sent.to, { ...Content.deserialize(sent.content), resentMessageId: messageId })];
    });
  }

  // Nobody will answer what was not answered: it is repeated on the next stream.
  streamEnded() { for (const entry of this.#queue) entry.isFlying = false; }

  // The sends that are too old to be tried again: they may have arrived.
  giveUp(transaction) {
    const deadline = this.#now() - GIVE_UP_MS;
    const old = this.#queue.filter(({ kept }) => kept.firstTriedAt && kept.firstTriedAt < deadline);
    return old.map((entry) => this.#settle(transaction, entry));
  }

  // The mesh, or the key server, will never take it.
  refuse(transaction, entry) { return this.#settle(transaction, entry); }

  #markTried(entries) {
    const fresh = entries.filter(({ kept }) => kept.firstTriedAt === null);
    const transaction = new Transaction(this.#store);
    for (const entry of fresh) entry.keep(transaction, { firstTriedAt: this.#now() });
    transaction.commit();
  }

  #flying() {
    const flying = this.#queue.filter((entry) => entry.isFlying);
    return [flying.length, flying.reduce((sum, entry) => sum + entry.size, 0)];
  }

  #find({ clientMessageId }) { return this.#queue.find(({ kept }) => kept.id.equals(clientMessageId)); }

  #settle(transaction, entry) {
    transaction.delete(entry.key);
    this.#queue = this.#queue.filter((one) => one !== entry);
    return entry;
  }
}

// One send: what of it is kept, and what concerns this run only.
class Entry {
  isFlying = false;
  notBefore = 0;

  constructor(key, kept) {
    [this.key, this.kept] = [key, kept];
    this.wants = kept.bodies ? null : [{ user: kept.to, device: 0 }];
    this.size = kept.bodies ? Send.serialize(this.#send()).length : 0;
  }

  keep(transaction, changes) {
    this.kept = { ...this.kept, ...changes };
    transaction.set(this.key, this.kept);
    this.size = Send.serialize(this.#send()).length;
  }

  bodyFor(user, device, registrationId) {
    return this.kept.bodies?.find((body) => body.userId.toString('hex') === user
      && body.deviceId === device && body.registrationId === registrationId);
  }

  event(after) {
    return { send: { ...this.#send(), after, firstTriedAt: timestamp(this.kept.firstTriedAt) } };
  }

  #send() {
    const { id, to, bodies } = this.kept;
    return { clientMessageId: id, userId: Buffer.from(to, 'hex'), perDevice: { bodies } };
  }
}

function framed(events, maxFrameBytes) {
  const frames = [];
  let room = 0;
  for (const event of events) {
    const size = Send.serialize(event.send).length + 16;
    if (size > room) {
      frames.push({ events: [] });
      room = maxFrameBytes - SPARE_BYTES;
    }
    frames.at(-1).events.push(event);
    room -= size;
  }
  return frames;
}
