// The other side of the interop tests: people, each with libsignal's own stores, driven by one JSON
// line a request. A test-only process of its own; nothing of it is imported, linked or shipped.
// usage: node peer.mjs PATH-OF-THE-PACKAGE
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const lib = await import(pathToFileURL(`${process.argv[2]}/dist/index.js`));
const raw = (text) => new Uint8Array(Buffer.from(text, 'base64'));
const text = (bytes) => Buffer.from(bytes).toString('base64');
const address = (name) => lib.ProtocolAddress.new(name, 1);
// Later versions want to know who asks, and say so by taking one argument more.
const both = (me, peer, rest) =>
  lib.signalDecrypt.length >= 5 ? [address(peer), address(me.name), ...rest] : [address(peer), ...rest];

class Sessions extends lib.SessionStore {
  all = new Map();
  // Every look-up reads the record from its bytes again.
  async saveSession(at, record) { this.all.set(at.name(), record.serialize()); }
  async getSession(at) {
    const stored = this.all.get(at.name());
    return stored ? lib.SessionRecord.deserialize(stored) : null;
  }
  async getExistingSessions(all) { return Promise.all(all.map((each) => this.getSession(each))); }
}

class Identity extends lib.IdentityKeyStore {
  constructor(key, registration) { super(); Object.assign(this, { key, registration }); }
  async getIdentityKey() { return this.key; }
  async getLocalRegistrationId() { return this.registration; }
  async saveIdentity() { return 0; }
  async isTrustedIdentity() { return true; }
  async getIdentity() { return null; }
}

class OneTime extends lib.PreKeyStore {
  all = new Map();
  async savePreKey(id, record) { this.all.set(id, record); }
  async getPreKey(id) { return this.all.get(id) ?? Promise.reject(new Error(`no prekey ${id}`)); }
  async removePreKey(id) { this.all.delete(id); }
}

class Signed extends lib.SignedPreKeyStore {
  all = new Map();
  async saveSignedPreKey(id, record) { this.all.set(id, record); }
  async getSignedPreKey(id) { return this.all.get(id); }
}

class Kyber extends lib.KyberPreKeyStore {
  all = new Map();
  async saveKyberPreKey(id, record) { this.all.set(id, record); }
  async getKyberPreKey(id) { return this.all.get(id); }
  async markKyberPreKeyUsed() {}
}

class SenderKeys extends lib.SenderKeyStore {
  all = new Map();
  async saveSenderKey(sender, id, record) { this.all.set(`${sender.name()} ${id}`, record); }
  async getSenderKey(sender, id) { return this.all.get(`${sender.name()} ${id}`) ?? null; }
}

const people = new Map();

const operations = {
  person({ name, registration }) {
    const key = lib.PrivateKey.generate();
    people.set(name, {
      name, key, registration, sessions: new Sessions(), identity: new Identity(key, registration),
      oneTime: new OneTime(), signed: new Signed(), kyber: new Kyber(), senderKeys: new SenderKeys(),
    });
    return { identity: text(key.getPublicKey().serialize()) };
  },
  async bundle({ name, oneTimeId, signedId, kemId }) {
    const me = people.get(name);
    const signed = lib.PrivateKey.generate();
    const kem = lib.KEMKeyPair.generate();
    const signedKey = signed.getPublicKey().serialize();
    const kemKey = kem.getPublicKey().serialize();
    const signature = me.key.sign(signedKey);
    const kemSignature = me.key.sign(kemKey);
    await me.signed.saveSignedPreKey(
      signedId, lib.SignedPreKeyRecord.new(signedId, 0, signed.getPublicKey(), signed, signature));
    await me.kyber.saveKyberPreKey(kemId, lib.KyberPreKeyRecord.new(kemId, 0, kem, kemSignature));
    let oneTimeKey = null;
    if (oneTimeId !== null) {
      const oneTime = lib.PrivateKey.generate();
      await me.oneTime.savePreKey(
        oneTimeId, lib.PreKeyRecord.new(oneTimeId, oneTime.getPublicKey(), oneTime));
      oneTimeKey = text(oneTime.getPublicKey().serialize());
    }
    return {
      oneTimeKey, signedKey: text(signedKey), signature: text(signature),
      kemKey: text(kemKey), kemSignature: text(kemSignature),
    };
  },
  async open({ name, peer, bundle }) {
    const me = people.get(name);
    const key = (encoded) => lib.PublicKey.deserialize(raw(encoded));
    const theirs = lib.PreKeyBundle.new(
      bundle.registration, 1, bundle.oneTimeId, bundle.oneTimeKey && key(bundle.oneTimeKey),
      bundle.signedId, key(bundle.signedKey), raw(bundle.signature), key(bundle.identity),
      bundle.kemId, lib.KEMPublicKey.deserialize(raw(bundle.kemKey)), raw(bundle.kemSignature));
    await lib.processPreKeyBundle(theirs, ...both(me, peer, [me.sessions, me.identity]));
    return {};
  },
  async encrypt({ name, peer, plaintext }) {
    const me = people.get(name);
    const sealed = await lib.signalEncrypt(
      raw(plaintext), ...both(me, peer, [me.sessions, me.identity]));
    return { prekey: sealed.type() === lib.CiphertextMessageType.PreKey, body: text(sealed.serialize()) };
  },
  async decrypt({ name, peer, prekey, body }) {
    const me = people.get(name);
    const opened = prekey
      ? await lib.signalDecryptPreKey(
        lib.PreKeySignalMessage.deserialize(raw(body)),
        ...both(me, peer, [me.sessions, me.identity, me.oneTime, me.signed, me.kyber]))
      : await lib.signalDecrypt(
        lib.SignalMessage.deserialize(raw(body)), ...both(me, peer, [me.sessions, me.identity]));
    return { plaintext: text(opened) };
  },
  async distribute({ name, group }) {
    const me = people.get(name);
    const message = await lib.SenderKeyDistributionMessage.create(address(name), group, me.senderKeys);
    return { body: text(message.serialize()) };
  },
  async admit({ name, peer, body }) {
    const message = lib.SenderKeyDistributionMessage.deserialize(raw(body));
    await lib.processSenderKeyDistributionMessage(address(peer), message, people.get(name).senderKeys);
    return {};
  },
  async groupEncrypt({ name, group, plaintext }) {
    const sealed = await lib.groupEncrypt(
      address(name), group, people.get(name).senderKeys, raw(plaintext));
    return { body: text(sealed.serialize()) };
  },
  async groupDecrypt({ name, peer, body }) {
    const opened = await lib.groupDecrypt(address(peer), people.get(name).senderKeys, raw(body));
    return { plaintext: text(opened) };
  },
  safetyNumber({ localId, localKey, remoteId, remoteKey }) {
    const key = (encoded) => lib.PublicKey.deserialize(raw(encoded));
    const print = lib.Fingerprint.new(
      5200, 2, raw(localId), key(localKey), raw(remoteId), key(remoteKey));
    return {
      digits: print.displayableFingerprint().toString(),
      scannable: text(print.scannableFingerprint().toBuffer()),
    };
  },
  sign({ name, content }) {
    return { signature: text(people.get(name).key.sign(raw(content))) };
  },
  verify({ key, content, signature }) {
    return { fits: lib.PublicKey.deserialize(raw(key)).verify(raw(content), raw(signature)) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await operations[request.operation](request);
  } catch (error) {
    answer = { error: error.name === 'Error' ? error.message : `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
