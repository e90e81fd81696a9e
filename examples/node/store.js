// What the device keeps: entries in memory, and a journal on the disk from which they come back.
//
// A transaction is one record of the journal, so that it is kept whole or not at all. A real client
// uses a database, and encrypts it: private keys are in here.
import { createHash } from 'node:crypto';
import {
  closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { deserialize, serialize } from 'node:v8';

const OWNER_ONLY = 0o600;
const HEAD_BYTES = 12; // length, then the start of a hash

// Changes over entries that are not kept yet; may stand on another transaction.
export class Transaction {
  changes = new Map();
  #below;

  constructor(below) { this.#below = below; }

  get(key) { return this.changes.has(key) ? this.changes.get(key) : this.#below.get(key); }

  set(key, value) { this.changes.set(key, value); }

  delete(key) { this.changes.set(key, undefined); }

  // The keys that begin so, in order.
  keys(prefix) {
    const changed = [...this.changes.keys()].filter((key) => key.startsWith(prefix));
    return [...new Set([...this.#below.keys(prefix), ...changed])]
      .filter((key) => this.get(key) !== undefined).sort();
  }

  // Hand the changes down.
  commit() { this.#below.apply(this.changes); }

  apply(changes) { for (const [key, value] of changes) this.changes.set(key, value); }
}

export class Store {
  #entries = new Map();
  #journal;

  constructor(path) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if (existsSync(path)) this.#load(readFileSync(path));
    // What was deleted is gone from the file after this.
    const fresh = openSync(`${path}.new`, 'w', OWNER_ONLY);
    write(fresh, this.#entries);
    renameSync(`${path}.new`, path);
    this.#journal = fresh;
  }

  get(key) { return this.#entries.get(key); }

  keys(prefix) { return [...this.#entries.keys()].filter((key) => key.startsWith(prefix)).sort(); }

  // Keep changes; when this returns they are on the disk.
  apply(changes) {
    if (!changes.size) return;
    write(this.#journal, changes);
    this.#change(changes);
  }

  close() { closeSync(this.#journal); }

  #load(bytes) {
    for (let at = 0; at + HEAD_BYTES <= bytes.length;) {
      const record = bytes.subarray(at + HEAD_BYTES, at + HEAD_BYTES + bytes.readUInt32BE(at));
      // The last record may be torn: then it never was acknowledged to anybody.
      if (!head(record).equals(bytes.subarray(at, at + HEAD_BYTES))) return;
      this.#change(deserialize(record));
      at += HEAD_BYTES + record.length;
    }
  }

  #change(changes) {
    for (const [key, value] of changes) {
      if (value === undefined) this.#entries.delete(key);
      else this.#entries.set(key, value);
    }
  }
}

function head(record) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(record.length);
  return Buffer.concat([length, createHash('sha256').update(record).digest().subarray(0, 8)]);
}

function write(file, changes) {
  const record = serialize(changes);
  writeSync(file, Buffer.concat([head(record), record]));
  fsyncSync(file);
}
