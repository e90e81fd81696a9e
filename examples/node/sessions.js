// Encrypting and decrypting: libsignal's own sessions, kept in the transaction that is handed in.
import {
  CiphertextMessageType, ErrorCode, IdentityChange, IdentityKeyStore, KEMPublicKey, KyberPreKeyRecord,
  KyberPreKeyStore, PreKeyBundle, PreKeyRecord, PreKeySignalMessage, PreKeyStore, ProtocolAddress, PublicKey,
  SessionRecord, SessionStore, SignalMessage, SignedPreKeyRecord, SignedPreKeyStore, processPreKeyBundle,
  signalDecrypt, signalDecryptPreKey, signalEncrypt,
} from '@signalapp/libsignal-client';
import { identity } from './keys.js';
import { pad, unpad } from './padding.js';

const RATCHET = 'CIPHERTEXT_TYPE_RATCHET';
const PREKEY = 'CIPHERTEXT_TYPE_PREKEY';
const KEPT_BASE_KEYS = 1000;

// A device is named by its account's id in hexadecimal digits, and its number.
const name = (user, device) => `session ${user} ${device}`;
const address = (user, device) => ProtocolAddress.new(user, device);

class Sessions extends SessionStore {
  constructor(store) { super(); this.store = store; }

  async saveSession(at, record) { this.store.set(name(at.name(), at.deviceId()), record.serialize()); }

  async getSession(at) { return find(this.store, at.name(), at.deviceId()); }

  async getExistingSessions(all) { return Promise.all(all.map((one) => this.getSession(one))); }
}

// The first identity key that is seen of an account is taken for its own; a change is told.
class Identities extends IdentityKeyStore {
  constructor(store) { super(); this.store = store; }

  async getIdentityKey() { return identity(this.store).privateKey; }

  async getLocalRegistrationId() { return this.store.get('registration id'); }

  async saveIdentity(at, key) {
    const known = this.store.get(`identity ${at.name()}`);
    const fresh = Buffer.from(key.serialize());
    if (known?.equals(fresh)) return IdentityChange.NewOrUnchanged;
    this.store.set(`identity ${at.name()}`, fresh);
    if (!known) return IdentityChange.NewOrUnchanged;
    this.store.set(`identity changed ${at.name()}`, true);
    return IdentityChange.ReplacedExisting;
  }

  async isTrustedIdentity() { return true; }

  async getIdentity(at) {
    const known = this.store.get(`identity ${at.name()}`);
    return known ? PublicKey.deserialize(known) : null;
  }
}

class OneTimeKeys extends PreKeyStore {
  constructor(store) { super(); this.store = store; }

  async savePreKey() { throw new Error('keys are made in keys.js'); }

  async getPreKey(id) { return PreKeyRecord.deserialize(known(this.store, `one-time ${id}`)); }

  async removePreKey(id) { this.store.delete(`one-time ${id}`); }
}

class SignedKeys extends SignedPreKeyStore {
  constructor(store) { super(); this.store = store; }

  async saveSignedPreKey() { throw new Error('keys are made in keys.js'); }

  async getSignedPreKey(id) { return SignedPreKeyRecord.deserialize(known(this.store, `signed ${id}`).record); }
}

class KemKeys extends KyberPreKeyStore {
  constructor(store) { super(); this.store = store; }

  async saveKyberPreKey() { throw new Error('keys are made in keys.js'); }

  async getKyberPreKey(id) { return KyberPreKeyRecord.deserialize(known(this.store, `kem ${id}`).record); }

  // A one-time key goes; a use of a last-resort key is remembered, and the second one is a replay.
  async markKyberPreKeyUsed(id, signedId, baseKey) {
    const kem = known(this.store, `kem ${id}`);
    if (!kem.isLastResort) {
      this.store.delete(`kem ${id}`);
      return;
    }
    const use = `${signedId} ${Buffer.from(baseKey.serialize()).toString('hex')}`;
    const uses = this.store.get(`uses ${id}`) ?? [];
    if (uses.includes(use)) throw new Error('a first message was repeated');
    this.store.set(`uses ${id}`, [...uses, use].slice(-KEPT_BASE_KEYS));
  }
}

// The devices of an account to which there is a session, with the registration that it is for.
export function openDevices(store, user) {
  const devices = new Map();
  for (const key of store.keys(`session ${user} `)) {
    const session = SessionRecord.deserialize(store.get(key));
    const device = Number(key.split(' ')[2]);
    if (session.hasCurrentState()) devices.set(device, session.remoteRegistrationId());
  }
  return devices;
}

// Open a session with a key bundle, as KeyService gave it. Throws if a signature is wrong.
export async function open(store, self, user, identityKey, bundle) {
  const { deviceId, registrationId, signedPrekey, oneTimePrekey, kemPrekey } = bundle;
  await processPreKeyBundle(
    PreKeyBundle.new(
      registrationId, deviceId,
      oneTimePrekey?.keyId ?? null, oneTimePrekey && PublicKey.deserialize(oneTimePrekey.publicKey),
      signedPrekey.keyId, PublicKey.deserialize(signedPrekey.publicKey), signedPrekey.signature,
      PublicKey.deserialize(identityKey),
      kemPrekey.keyId, KEMPublicKey.deserialize(kemPrekey.publicKey), kemPrekey.signature),
    address(user, deviceId), address(self.user, self.device), new Sessions(store), new Identities(store));
}

// The device is written to no more without a new session; what it wrote can still be read.
export function putAway(store, user, device) {
  const session = find(store, user, device);
  if (!session) return;
  session.archiveCurrentState();
  store.set(name(user, device), session.serialize());
}

// A `DeviceBody` for one device.
export async function encrypt(store, self, user, device, plaintext) {
  const registrationId = find(store, user, device).remoteRegistrationId();
  const sealed = await signalEncrypt(
    pad(plaintext), address(user, device), address(self.user, self.device),
    new Sessions(store), new Identities(store));
  return {
    userId: Buffer.from(user, 'hex'),
    deviceId: device,
    registrationId,
    type: sealed.type() === CiphertextMessageType.PreKey ? PREKEY : RATCHET,
    ciphertext: Buffer.from(sealed.serialize()),
  };
}

// What a device wrote. Throws `Repeated` for a message that was read before, anything else if it
// cannot be read; then nothing in the store may be kept.
export async function decrypt(store, self, user, device, { type, ciphertext }) {
  const peers = [address(user, device), address(self.user, self.device), new Sessions(store), new Identities(store)];
  try {
    if (type === RATCHET) return unpad(await signalDecrypt(SignalMessage.deserialize(ciphertext), ...peers));
    if (type !== PREKEY) throw new Error(`not encrypted to this device: ${type}`);
    return unpad(await signalDecryptPreKey(
      PreKeySignalMessage.deserialize(ciphertext), ...peers,
      new OneTimeKeys(store), new SignedKeys(store), new KemKeys(store)));
  } catch (error) {
    throw error.code === ErrorCode.DuplicatedMessage ? new Repeated() : error;
  }
}

export class Repeated extends Error {}

function find(store, user, device) {
  const stored = store.get(name(user, device));
  return stored ? SessionRecord.deserialize(stored) : null;
}

function known(store, key) {
  const value = store.get(key);
  if (!value) throw new Error(`there is no key ${key}`);
  return value;
}
