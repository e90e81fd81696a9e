// The account: registering, access tokens, look-ups, and the upkeep of the device's keys.
import { Transaction } from './store.js';
import * as keys from './keys.js';
import { milliseconds, timestamp } from './mesh.js';

const SPARE_MS = 60_000;
const ZERO = Buffer.of(0);

export class Account {
  #mesh;
  #store;
  #token = '';
  #renewAt = 0;

  constructor(mesh, store) { [this.#mesh, this.#store] = [mesh, store]; }

  get handle() { return this.#store.get('account').handle; }

  // Who this device is: `user` in hexadecimal digits, and `device`.
  get self() { return this.#store.get('account'); }

  get #userId() { return Buffer.from(this.self.user, 'hex'); }

  // Make the account, or find it again: the same handle with the same keys gives the same account.
  async register(handle) {
    if (this.#store.get('account')) return;
    if (!this.#store.get('identity')) this.#keep((store) => keys.makeKeys(store, this.#mesh.clock.now()));
    const answer = await this.#mesh.call('IdentityService', 'Register', (now) => this.#application(handle, now));
    this.#take(answer);
    this.#keep((store) => store.set(
      'account', { handle, user: answer.userId.toString('hex'), device: answer.deviceId }));
    await this.refill();
  }

  // A token that lasts; a new one is fetched when it must be.
  async token() {
    if (!this.renewIn()) await this.renew();
    return this.#token;
  }

  // Milliseconds until the token should be replaced.
  renewIn() { return this.#token ? Math.max(0, this.#renewAt - this.#mesh.clock.now()) : 0; }

  async renew() {
    const { device } = this.self;
    this.#take(await this.#mesh.call('IdentityService', 'Refresh', (now) => {
      const id = Buffer.alloc(4);
      id.writeUInt32BE(device);
      const signature = keys.prove(
        this.#store, 'whimbrel refresh v1', ZERO, this.#userId, id, ZERO, keys.eightBytes(now));
      return { userId: this.#userId, deviceId: device, signedAt: timestamp(now), signature };
    }));
  }

  // The mesh did not like the token.
  forgetToken() { this.#token = ''; }

  // The account that has a handle, in hexadecimal digits.
  async lookUp(handle) {
    const { userId } = await this.#call('IdentityService', 'LookUp', { handle });
    return userId.toString('hex');
  }

  // What opens sessions to one device of an account, or to all if it is 0.
  async fetchKeys(user, deviceId = 0) {
    return this.#call('KeyService', 'FetchKeys', { userId: Buffer.from(user, 'hex'), deviceId });
  }

  // What is due each time a stream has opened.
  async keepKeys() {
    const now = this.#mesh.clock.now();
    if (keys.isOld(this.#store, now)) this.#keep((store) => keys.rotate(store, now));
    const { equal } = await this.#call('KeyService', 'CheckKeys', { digest: keys.digest(this.#store) });
    if (!equal) {
      const { signedPrekey, lastResortPrekey } = keys.deviceKeys(this.#store);
      await this.#call('KeyService', 'UploadKeys', { signedPrekey, lastResortPrekey });
    }
    if (keys.isLow(await this.#call('KeyService', 'CountKeys', {}))) await this.refill();
  }

  // The private keys are on the disk before anybody can use the public ones.
  async refill() {
    let pools;
    this.#keep((store) => { pools = keys.refill(store, this.#mesh.clock.now()); });
    await this.#call('KeyService', 'UploadKeys', pools);
  }

  #application(handle, now) {
    const deviceKeys = keys.deviceKeys(this.#store);
    const signature = keys.prove(
      this.#store, 'whimbrel register v2', ZERO, handle, ZERO, '', ZERO, deviceKeys.identityKey,
      deviceKeys.signedPrekey.publicKey, deviceKeys.lastResortPrekey.publicKey, keys.eightBytes(now));
    return {
      handle,
      devicePublicKey: keys.devicePublicKey(this.#store),
      signedAt: timestamp(now),
      signature,
      keys: deviceKeys,
    };
  }

  async #call(service, method, request) {
    return this.#mesh.call(service, method, request, await this.token());
  }

  #take({ accessToken, expiresAt }) {
    const now = this.#mesh.clock.now();
    const lasts = milliseconds(expiresAt) - now;
    this.#token = accessToken;
    this.#renewAt = now + lasts - Math.min(SPARE_MS, lasts / 2);
  }

  #keep(change) {
    const transaction = new Transaction(this.#store);
    change(transaction);
    transaction.commit();
  }
}
