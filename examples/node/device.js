// One device: a stream after another, at one gateway or the next. It is the protocol of
// `GatewayService.Connect`, as docs/clients.md tells it.
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Account } from './account.js';
import { Inbox } from './inbox.js';
import { CallFailed, Mesh, isCallsFailure, milliseconds } from './mesh.js';
import { Outbox } from './outbox.js';
import { Transaction } from './store.js';

const WELCOME_MS = 10_000;
const GOODBYE_MS = 5_000;
const MOST_RETRIES = 256;
const REVOKED = new Set(['DEVICE_REVOKED', 'DEVICE_UNKNOWN', 'SIGNATURE_INVALID']);
const BAD_TOKEN = new Set(['TOKEN_EXPIRED', 'TOKEN_INVALID', 'TOKEN_MISSING', 'UNAUTHENTICATED']);

// Emits `online`, `offline`, `message`, `accepted`, `refused`, `receipt`, `identity`.
export class Device extends EventEmitter {
  #store;
  #mesh;
  #stream; // the open one
  #outbox;
  #inbox;
  #lock = Promise.resolve();
  #isClosing = new AbortController();
  #failures = 0;
  #preparing; // a promise while something is being encrypted
  #timer;

  constructor(store, gateways) {
    super();
    this.#store = store;
    this.#mesh = new Mesh(gateways);
    this.account = new Account(this.#mesh, store);
  }

  async register(handle) {
    await this.account.register(handle);
    this.#outbox = new Outbox(this.#store, this.account, () => this.#mesh.clock.now());
    this.#inbox = new Inbox(this.account.self);
  }

  // Be connected, or on the way there, until `close`. Throws when the device was revoked.
  async run() {
    while (!this.#isClosing.signal.aborted) {
      const ending = await this.#oneStream();
      if (this.#isClosing.signal.aborted) return this.#rest();
      this.emit('offline', ending);
      if (REVOKED.has(ending.reason)) throw new Error(`this device is no longer linked: ${ending.reason}`);
      if (BAD_TOKEN.has(ending.reason)) this.account.forgetToken();
      if (ending.reason) this.#mesh.next();
      await pause(this.#comeback(ending), this.#isClosing.signal);
    }
    return this.#rest();
  }

  // Queue words for an account. Returns their client message id, in hexadecimal digits.
  async send(to, text) {
    return this.#locked(() => {
      const transaction = new Transaction(this.#store);
      const entry = this.#outbox.add(transaction, to, { text: { body: text } });
      transaction.commit();
      this.#outbox.queued(entry);
      this.#work();
      return entry.kept.id.toString('hex');
    });
  }

  // The person has read a chat up to a seq: repeated until the mesh has recorded it.
  async read(chat, upToSeq) {
    return this.#locked(() => {
      if (upToSeq <= (this.#store.get(`read ${chat}`) ?? 0)) return;
      this.#store.apply(new Map([[`read ${chat}`, upToSeq], [`unrecorded ${chat}`, upToSeq]]));
      this.#stream?.write(readEvent(chat, upToSeq));
    });
  }

  // The messages that were kept after a cursor.
  kept(cursor) { return Inbox.kept(this.#store, cursor); }

  close() {
    this.#isClosing.abort();
    this.#stream?.end();
  }

  // The stream.

  async #oneStream() {
    let connection;
    try {
      connection = this.#mesh.connect(await this.account.token());
    } catch (error) {
      if (error instanceof CallFailed) return { reason: error.reason };
      throw error;
    }
    const stream = new Stream(connection.call);
    const renewing = new AbortController();
    this.#renew(stream, renewing.signal).catch((error) => this.emit('error', error));
    try {
      stream.write({ hello: { client: 'whimbrel-node', afterReceipts: this.#store.get('receipts') ?? 0 } });
      for await (const frame of connection.call) await this.#locked(() => this.#receive(stream, frame.events));
    } catch (error) {
      if (!(error instanceof BrokenStream) && !isCallsFailure(error)) throw error; // a bug, or the disk
      stream.ending.reason ??= error instanceof BrokenStream ? 'BROKEN_STREAM' : new CallFailed(error).reason;
    } finally {
      renewing.abort();
      stream.over();
      connection.client.close();
      await this.#locked(() => this.#ended());
    }
    return stream.ending;
  }

  async #receive(stream, events) {
    const batch = { transaction: new Transaction(this.#store), told: [], queued: [], unreadable: new Map() };
    for (const event of events) {
      const take = this[`_${event.event}`]; // what is newer than this client is left alone
      if (take) await take.call(this, event[event.event], batch, stream);
    }
    this.#askAgain(batch);
    this.#tellIdentities(batch);
    batch.transaction.commit();
    // Only now is it kept: the mesh may forget it, and the person may see it.
    if (batch.upToPos) stream.write({ ack: { upToPos: batch.upToPos } });
    batch.queued.forEach((entry) => this.#outbox.queued(entry));
    batch.told.forEach(([name, ...what]) => this.emit(name, ...what));
    this.#work();
  }

  _welcome({ serverTime, limits, headPos }, batch, stream) {
    this.#mesh.clock.learn(milliseconds(serverTime));
    stream.opened(limits);
    this.#stream = stream;
    for (const key of this.#store.keys('unrecorded ')) {
      stream.write(readEvent(key.split(' ')[1], this.#store.get(key)));
    }
    batch.told.push(['online', { headPos }]);
    this.account.keepKeys().catch((error) => this.emit('trouble', error));
  }

  async _deliver(envelope, batch, stream) {
    stream.demandNext(envelope.pos);
    batch.upToPos = envelope.pos;
    const { message, retry, unreadable } = await this.#inbox.take(batch.transaction, envelope) ?? {};
    if (message) batch.told.push(['message', message]);
    if (retry) batch.queued.push(...this.#answerRetry(batch.transaction, retry));
    if (unreadable) {
      const key = `${unreadable.from.user} ${unreadable.from.device}`;
      batch.unreadable.set(key, [...batch.unreadable.get(key) ?? [], unreadable.messageId]);
    }
  }

  _accepted(answer, { transaction, told }) {
    const entry = this.#outbox.accepted(transaction, answer);
    if (entry) told.push(['accepted', { id: entry.kept.id.toString('hex'), to: entry.kept.to, seq: answer.seq }]);
  }

  _rejected(answer, batch) {
    if (answer.firstAnswer) {
      this._accepted(answer.firstAnswer, batch);
      return;
    }
    const entry = this.#outbox.rejected(batch.transaction, answer);
    const reason = answer.reason.replace('ERROR_REASON_', '');
    if (entry) batch.told.push(['refused', { id: entry.kept.id.toString('hex'), reason }]);
  }

  _deviceMismatch(mismatch, { transaction }) { this.#outbox.mismatched(transaction, mismatch); }

  _receipt(receipt, { transaction, told }) {
    if (receipt.version <= (transaction.get('receipts') ?? 0)) return;
    transaction.set('receipts', receipt.version);
    const { delivered, readUpTo } = receipt;
    told.push(['receipt', { chat: receipt.userId.toString('hex'), delivered, readUpTo }]);
  }

  _readRecorded({ userId, upToSeq }, { transaction }) {
    const key = `unrecorded ${userId.toString('hex')}`;
    if (transaction.get(key) <= upToSeq) transaction.delete(key);
  }

  _caughtUp({ pos }, { told }) { told.push(['caughtUp', { pos }]); }

  _lowPrekeys() { this.account.refill().catch((error) => this.emit('trouble', error)); }

  _goAway({ reason, reconnectAfter }, _batch, stream) {
    stream.ending.reason = reason.replace('ERROR_REASON_', '');
    if (reconnectAfter) stream.ending.after = milliseconds(reconnectAfter);
  }

  #ended() {
    this.#stream = undefined;
    this.#outbox.streamEnded();
    const transaction = new Transaction(this.#store);
    const old = this.#outbox.giveUp(transaction);
    transaction.commit();
    for (const { kept } of old) this.emit('refused', { id: kept.id.toString('hex'), reason: 'NOT_CONFIRMED' });
  }

  // The stream goes on under the next token, before this one ends.
  async #renew(stream, signal) {
    let wait = this.account.renewIn();
    while (await pause(wait, signal)) {
      try {
        await this.account.renew();
        stream.write({ reauthenticate: { token: await this.account.token() } });
        wait = this.account.renewIn();
      } catch (error) {
        if (!(error instanceof CallFailed)) throw error;
        wait = 1000 + Math.random() * 4000;
      }
    }
  }

  // What is to be sent.

  // Encrypt and write what there is. Never waits; one round of it is under way at most.
  #work() {
    clearTimeout(this.#timer);
    this.#preparing ??= this.#prepareAll().catch((error) => this.emit('error', error)).then(() => {
      this.#preparing = undefined;
      if (this.#stream && this.#outbox.unprepared()) this.#work(); // it came at the last moment
    });
    this.#write();
    const dueIn = this.#outbox.dueIn();
    if (dueIn !== undefined && this.#stream) this.#timer = setTimeout(() => this.#locked(() => this.#work()), dueIn);
  }

  async #prepareAll() {
    for (let entry = this.#outbox.unprepared(); entry && this.#stream; entry = this.#outbox.unprepared()) {
      await this.#prepare(entry);
    }
  }

  async #prepare(entry) {
    try {
      const fetched = await this.#outbox.fetch(entry);
      await this.#locked(() => this.#outbox.prepare(entry, fetched));
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      if (error.reason === 'RECIPIENT_UNKNOWN') await this.#locked(() => this.#refuse(entry, error.reason));
      else this.#outbox.hold(entry, error.retryAfter);
    }
    await this.#locked(() => this.#write());
  }

  #write() {
    if (this.#stream) this.#outbox.take(this.#stream.limits).forEach((frame) => this.#stream.writeFrame(frame));
  }

  // Let what was begun come to its end.
  async #rest() {
    clearTimeout(this.#timer);
    await this.#preparing;
    await this.#lock;
  }

  #refuse(entry, reason) {
    const transaction = new Transaction(this.#store);
    this.#outbox.refuse(transaction, entry);
    transaction.commit();
    this.emit('refused', { id: entry.kept.id.toString('hex'), reason });
  }

  #answerRetry(transaction, { chat, from, messageIds }) {
    // Others may ask for what was written to them, an own device for all.
    const to = from.user === this.account.self.user ? undefined : chat;
    return this.#outbox.resend(transaction, to, messageIds.slice(0, MOST_RETRIES));
  }

  #askAgain({ transaction, unreadable, queued }) {
    for (const [key, messageIds] of unreadable) {
      const [user, device] = key.split(' ');
      const retryRequest = { deviceId: Number(device), messageIds: messageIds.slice(0, MOST_RETRIES) };
      queued.push(this.#outbox.add(transaction, user, { retryRequest }));
    }
  }

  #tellIdentities({ transaction, told }) {
    for (const key of transaction.keys('identity changed ')) {
      transaction.delete(key);
      told.push(['identity', { user: key.split(' ')[2] }]);
    }
  }

  // Coming back: with full jitter, unless the mesh has said when.
  #comeback({ reason, after, openedAt }) {
    if (!reason) return 0;
    const bound = () => Math.min(15_000, 250 * 2 ** Math.min(this.#failures - 1, 10));
    const lasted = openedAt ? performance.now() - openedAt : 0;
    this.#failures = openedAt && lasted >= bound() ? 1 : this.#failures + 1;
    if (reason === 'STREAM_REPLACED') return Math.max(after ?? 0, 1000 + Math.random() * 4000);
    return after ?? Math.random() * bound();
  }

  // What changes sessions or the queue happens one after the other.
  #locked(work) {
    const done = this.#lock.then(work);
    this.#lock = done.catch(() => {});
    return done;
  }
}

// Whether the time has passed; false: it was cut short.
const pause = (ms, signal) => sleep(ms, true, { signal }).catch(() => false);

// The server broke the protocol: what it delivers cannot be acknowledged.
class BrokenStream extends Error {}

// One Connect call.
class Stream {
  ending = {};
  limits;
  #call;
  #deadline;
  #pos;
  #isOver = false;

  constructor(call) {
    this.#call = call;
    this.#cancelIn(WELCOME_MS);
  }

  opened(limits) {
    this.limits = limits;
    this.ending.openedAt = performance.now();
    clearTimeout(this.#deadline);
  }

  write(event) { this.writeFrame({ events: [event] }); }

  writeFrame(frame) { if (!this.#isOver) this.#call.write(frame); }

  // Half-close: the mesh answers what it was asked, then ends the call.
  end() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#call.end();
    this.#cancelIn(GOODBYE_MS);
  }

  over() {
    this.#isOver = true;
    clearTimeout(this.#deadline);
  }

  // The first delivery may have any pos; after it they have no gap.
  demandNext(pos) {
    if (this.#pos !== undefined && pos !== this.#pos + 1) {
      throw new BrokenStream('the deliveries have a gap');
    }
    this.#pos = pos;
  }

  #cancelIn(ms) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#call.cancel(), ms);
  }
}

const readEvent = (chat, upToSeq) => ({ read: { userId: Buffer.from(chat, 'hex'), upToSeq } });
