// Padding of plaintexts, so that a ciphertext's length tells little: a 0x80, then zeros up to a
// multiple of 80 less one; the cipher's own padding fills the step.
const STEP = 80;
const END = 0x80;

export function pad(plaintext) {
  const padded = Buffer.alloc(Math.ceil((plaintext.length + 2) / STEP) * STEP - 1);
  padded.set(plaintext);
  padded[plaintext.length] = END;
  return padded;
}

export function unpad(padded) {
  let end = padded.length - 1;
  while (end >= 0 && padded[end] === 0) end -= 1;
  if (padded[end] !== END) throw new Error('the plaintext is not padded');
  return Buffer.from(padded.subarray(0, end));
}
