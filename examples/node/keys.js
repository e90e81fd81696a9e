// The device's keys: made, handed to the key server, refilled and rotated. The private halves stay
// in the store for as long as a message may still need them.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomInt, sign } from 'node:crypto';
import {
  IdentityKeyPair, KEMKeyPair, KyberPreKeyRecord, PreKeyRecord, PrivateKey, SignedPreKeyRecord,
} from '@signalapp/libsignal-client';

const POOL = 100;
const LOW = 20;
const ROTATE_MS = 7 * 24 * 3600 * 1000;
const KEEP_MS = 35 * 24 * 3600 * 1000; // longer than a message waits in a queue

// Keys for a new account: what signs its calls, and what opens sessions to it.
export function makeKeys(store, now) {
  if (!store.get('device key')) {
    const { privateKey } = generateKeyPairSync('ed25519');
    store.set('device key', privateKey.export({ type: 'pkcs8', format: 'der' }));
  }
  store.set('identity', IdentityKeyPair.generate().serialize());
  store.set('registration id', randomInt(1, 16381));
  rotate(store, now);
}

// A new signed key and a new last-resort key; the ones before stay readable for a while.
export function rotate(store, now) {
  const own = identity(store).privateKey;
  for (const key of store.keys('signed ')) {
    if (store.get(key).madeAt < now - KEEP_MS) store.delete(key);
  }
  const signed = PrivateKey.generate();
  const signedKey = signed.getPublicKey();
  const id = nextId(store);
  const record = SignedPreKeyRecord.new(id, now, signedKey, signed, own.sign(signedKey.serialize()));
  store.set(`signed ${id}`, { record: record.serialize(), madeAt: now });
  const kem = kemPrekey(store, own, now);
  store.set(`kem ${kem.id()}`, { record: kem.serialize(), isLastResort: true, madeAt: now });
  store.set('current keys', { signed: id, lastResort: kem.id(), madeAt: now });
}

export const isOld = (store, now) => store.get('current keys').madeAt < now - ROTATE_MS;

// Full pools of one-time keys. They replace the pools at the server; of the pool before, keys may
// be on their way to us, of those before that hardly any.
export function refill(store, now) {
  const own = identity(store).privateKey;
  const { first = 0, before = 0 } = store.get('pool') ?? {};
  forgetBelow(store, before);
  store.set('pool', { first: nextId(store), before: first });
  const oneTimePrekeys = [];
  const oneTimeKemPrekeys = [];
  for (let count = 0; count < POOL; count += 1) {
    const id = nextId(store);
    const key = PrivateKey.generate();
    store.set(`one-time ${id}`, PreKeyRecord.new(id, key.getPublicKey(), key).serialize());
    oneTimePrekeys.push({ keyId: id, publicKey: key.getPublicKey().serialize() });
    const kem = kemPrekey(store, own, now);
    store.set(`kem ${kem.id()}`, { record: kem.serialize(), isLastResort: false, madeAt: now });
    oneTimeKemPrekeys.push(onTheWire(kem));
  }
  return { oneTimePrekeys, oneTimeKemPrekeys };
}

export const isLow = ({ oneTimePrekeys, oneTimeKemPrekeys }) =>
  Math.min(oneTimePrekeys, oneTimeKemPrekeys) < LOW;

// `DeviceKeys` of the protos; the two signed keys also go into `UploadKeysRequest`.
export function deviceKeys(store) {
  const { signed, lastResort } = current(store);
  return {
    identityKey: identity(store).publicKey.serialize(),
    registrationId: store.get('registration id'),
    signedPrekey: onTheWire(signed),
    lastResortPrekey: onTheWire(lastResort),
  };
}

// What CheckKeys compares.
export function digest(store) {
  const { identityKey, signedPrekey, lastResortPrekey } = deviceKeys(store);
  const hash = createHash('sha256').update(identityKey);
  for (const { keyId, publicKey } of [signedPrekey, lastResortPrekey]) {
    hash.update(eightBytes(keyId)).update(publicKey);
  }
  return hash.digest();
}

export const identity = (store) => IdentityKeyPair.deserialize(store.get('identity'));

// Sign a proof as `identity.proto` describes it, with the device's Ed25519 key.
export const prove = (store, ...parts) => sign(null, Buffer.concat(parts.map(Buffer.from)), deviceKey(store));

export function devicePublicKey(store) {
  const { x } = createPublicKey(deviceKey(store)).export({ format: 'jwk' });
  return Buffer.from(x, 'base64url');
}

export function eightBytes(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return bytes;
}

function current(store) {
  const ids = store.get('current keys');
  return {
    signed: SignedPreKeyRecord.deserialize(store.get(`signed ${ids.signed}`).record),
    lastResort: KyberPreKeyRecord.deserialize(store.get(`kem ${ids.lastResort}`).record),
  };
}

function kemPrekey(store, own, now) {
  const pair = KEMKeyPair.generate();
  return KyberPreKeyRecord.new(nextId(store), now, pair, own.sign(pair.getPublicKey().serialize()));
}

const onTheWire = (record) => ({
  keyId: record.id(), publicKey: record.publicKey().serialize(), signature: record.signature(),
});

function forgetBelow(store, id) {
  for (const key of [...store.keys('one-time '), ...store.keys('kem ')]) {
    const isForGood = store.get(key).isLastResort && store.get(key).madeAt > Date.now() - KEEP_MS;
    if (Number(key.split(' ')[1]) < id && !isForGood) store.delete(key);
  }
}

const deviceKey = (store) => createPrivateKey({ key: store.get('device key'), type: 'pkcs8', format: 'der' });

function nextId(store) {
  const id = (store.get('last key id') ?? 0) + 1;
  store.set('last key id', id);
  return id;
}
