// What this device receives: each message once, decrypted and kept in one transaction, with what it
// changed in the session.
import { type, milliseconds } from './mesh.js';
import { Repeated, decrypt, putAway } from './sessions.js';
import { Transaction } from './store.js';

// Two sides that cannot read each other must not ask each other for ever.
const MOST_ASKED = 5;
const ASKED_WITHIN_MS = 10 * 60 * 1000;

const Content = type('whimbrel.content.v1.Content');

export class Inbox {
  #self;

  constructor(self) { this.#self = self; }

  // Take a delivery into the transaction. Returns undefined if it was here before; else
  // `message` (to show), `retry` (messages that a device could not read) or `unreadable` (ours).
  async take(transaction, envelope) {
    const chat = envelope.userId.toString('hex');
    // Seqs ascend, also across repetitions.
    if (envelope.seq <= (transaction.get(`seen ${chat}`) ?? 0)) return undefined;
    transaction.set(`seen ${chat}`, envelope.seq);
    const from = { user: envelope.senderUserId.toString('hex'), device: envelope.senderDeviceId };
    const inner = new Transaction(transaction);
    try {
      const plaintext = await decrypt(inner, this.#self, from.user, from.device, envelope);
      const content = this.#read(plaintext, chat, from);
      inner.commit();
      return this.#sort(transaction, { chat, from, envelope, content });
    } catch (error) {
      if (error instanceof Repeated) return undefined;
      return this.#unreadable(transaction, { chat, from, envelope, error });
    }
  }

  // What was kept after a cursor, in the order in which it came.
  static kept(store, cursor) {
    return store.keys('message ').map((key) => store.get(key)).filter((one) => one.cursor > cursor);
  }

  #read(plaintext, chat, from) {
    const content = Content.deserialize(plaintext);
    const to = from.user === this.#self.user ? chat : this.#self.user;
    if (content.to?.length && content.to.toString('hex') !== to) throw new Misdirected('written to somebody else');
    return content;
  }

  #sort(transaction, { chat, from, envelope, content }) {
    const retry = content.retryRequest;
    if (retry) {
      const isOurs = from.user !== this.#self.user || chat === this.#self.user;
      return isOurs && retry.deviceId === this.#self.device
        ? { retry: { chat, from, messageIds: retry.messageIds } } : {};
    }
    let messageId = envelope.messageId.toString('hex');
    const resent = content.resentMessageId?.toString('hex');
    if (resent) {
      if (transaction.get(`unreadable ${resent}`) !== from.user) return {}; // it was read before
      transaction.delete(`unreadable ${resent}`);
      messageId = resent;
    }
    const message = { chat, from, messageId, seq: envelope.seq, kind: content.kind ?? 'unknown' };
    if (content.text) message.text = content.text.body;
    return { message: this.#keep(transaction, message, envelope) };
  }

  #unreadable(transaction, { chat, from, envelope, error }) {
    const messageId = envelope.messageId.toString('hex');
    transaction.set(`unreadable ${messageId}`, from.user);
    if (!(error instanceof Misdirected)) putAway(transaction, from.user, from.device);
    const message = { chat, from, messageId, seq: envelope.seq, kind: 'unreadable', why: error.message };
    const kept = this.#keep(transaction, message, envelope);
    const isAsked = !(error instanceof Misdirected) && this.#mayAsk(transaction, from, kept.at);
    return { message: kept, unreadable: isAsked ? { from, messageId: envelope.messageId } : undefined };
  }

  #mayAsk(transaction, { user, device }, at) {
    const key = `asked ${user} ${device}`;
    const recent = (transaction.get(key) ?? []).filter((when) => when > at - ASKED_WITHIN_MS);
    transaction.set(key, [...recent, at].slice(-MOST_ASKED));
    return recent.length < MOST_ASKED;
  }

  #keep(transaction, message, envelope) {
    const cursor = (transaction.get('last cursor') ?? 0) + 1;
    transaction.set('last cursor', cursor);
    const kept = { ...message, at: milliseconds(envelope.acceptedAt), cursor };
    transaction.set(`message ${String(cursor).padStart(15, '0')}`, kept);
    return kept;
  }
}

// The server, or a liar, has moved the message to another conversation.
class Misdirected extends Error {}
