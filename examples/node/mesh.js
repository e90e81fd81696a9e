// The mesh as a client sees it: messages by name, unary calls at whichever gateway answers, and the
// server's clock. The protos of this repository are read as they are; nothing is generated.
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const definitions = loadSync(
  [
    'whimbrel/gateway/v1/gateway.proto', 'whimbrel/identity/v1/identity.proto',
    'whimbrel/identity/v1/keys.proto', 'whimbrel/content/v1/content.proto', 'rpc.proto',
  ],
  {
    includeDirs: [here('../../proto'), here('.')],
    longs: Number, enums: String, defaults: true, oneofs: true,
  },
);

// A message type, with `serialize` and `deserialize`.
export const type = (name) => definitions[name];

const OPTIONS = {
  // A dead peer is noticed within 55 s, also while nothing is said.
  'grpc.keepalive_time_ms': 45_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_receive_message_length': 1024 * 1024,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
};
const CALL_MS = 10_000;
const ROUNDS = 3;
const TRANSIENT = new Set(['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'OVERLOADED', 'CANCELLED']);

// A call failed; `reason` is a whimbrel.error.v1.ErrorReason without its prefix, or a gRPC code.
export class CallFailed extends Error {
  constructor(failure) {
    super(failure.details || failure.message);
    this.reason = grpc.status[failure.code] ?? 'UNKNOWN';
    this.metadata = {};
    this.retryAfter = undefined; // in milliseconds
    for (const detail of details(failure)) this.#read(detail);
  }

  #read({ type_url: url, value }) {
    if (url.endsWith('/google.rpc.ErrorInfo')) {
      const info = type('google.rpc.ErrorInfo').deserialize(value);
      if (info.domain === 'whimbrel') Object.assign(this, { reason: info.reason, metadata: info.metadata });
    } else if (url.endsWith('/google.rpc.RetryInfo')) {
      this.retryAfter = milliseconds(type('google.rpc.RetryInfo').deserialize(value).retryDelay);
    }
  }
}

export class Mesh {
  clock = new Clock();
  #gateways;

  constructor(gateways) {
    const first = randomInt(gateways.length);
    this.#gateways = [...gateways.slice(first), ...gateways.slice(0, first)];
  }

  get gateway() { return this.#gateways[0]; }

  // The gateway did not do: take the next one.
  next() { this.#gateways.push(this.#gateways.shift()); }

  // A connection of its own to the present gateway, for a stream. Close its client after it.
  connect(token) {
    const client = new grpc.Client(this.gateway, grpc.credentials.createInsecure(), OPTIONS);
    const { path, requestSerialize, responseDeserialize } =
      definitions['whimbrel.gateway.v1.GatewayService'].Connect;
    const call = client.makeBidiStreamRequest(
      path, requestSerialize, responseDeserialize, bearer(token));
    return { client, call };
  }

  // Call a method, `request` being a message or a function that makes one for each try.
  async call(service, method, request, token) {
    let failed;
    for (let round = 0; round < ROUNDS; round += 1) {
      if (round) await sleep(randomInt(250 * 2 ** round));
      for (let turn = 0; turn < this.#gateways.length; turn += 1) {
        try {
          return await this.#once(service, method, request, token);
        } catch (error) {
          if (!this.#isWorthRepeating(error)) throw error;
          failed = error;
          this.next();
        }
      }
    }
    throw failed;
  }

  async #once(service, method, request, token) {
    const { path, requestSerialize, responseDeserialize } =
      definitions[`whimbrel.identity.v1.${service}`][method];
    const client = new grpc.Client(this.gateway, grpc.credentials.createInsecure(), OPTIONS);
    const message = typeof request === 'function' ? request(this.clock.now()) : request;
    try {
      return await new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path, requestSerialize, responseDeserialize, message, bearer(token),
          { deadline: Date.now() + CALL_MS },
          (failure, answer) => (failure ? reject(new CallFailed(failure)) : resolve(answer)));
      });
    } finally {
      client.close();
    }
  }

  #isWorthRepeating(error) {
    if (error.reason === 'SIGNATURE_STALE' && error.metadata.server_time) {
      // The date is wrong here: sign with the server's time the next time.
      this.clock.learn(Date.parse(error.metadata.server_time));
      return true;
    }
    return TRANSIENT.has(error.reason) || (error.retryAfter ?? Infinity) <= CALL_MS;
  }
}

// The server's clock as it was last told, carried on by a clock that never jumps.
class Clock {
  #base = Date.now();
  #at = performance.now();

  learn(serverTime) { [this.#base, this.#at] = [serverTime, performance.now()]; }

  now() { return Math.floor(this.#base + performance.now() - this.#at); }
}

// Whether it is how a gRPC call ended.
export const isCallsFailure = (error) => typeof error.code === 'number' && error.metadata instanceof grpc.Metadata;

export const timestamp = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1e6 });

export const milliseconds = ({ seconds, nanos }) => seconds * 1000 + Math.floor(nanos / 1e6);

function bearer(token) {
  const metadata = new grpc.Metadata();
  if (token) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function details(failure) {
  const [encoded] = failure.metadata?.get('grpc-status-details-bin') ?? [];
  return encoded ? type('google.rpc.Status').deserialize(encoded).details : [];
}
