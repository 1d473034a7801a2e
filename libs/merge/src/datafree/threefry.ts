/** Makes an all-zero key harmless. */
const PARITY = 0x1bd11bda;
const ROUNDS = 20;

/** Two 32-bit words. */
export type WordPair = readonly [number, number];

function rotateLeft(word: number, distance: number): number {
  return (word << distance) | (word >>> (32 - distance));
}

/**
 * The random words that Threefry-2x32 with 20 rounds gives for a counter under a key: Salmon, Moraes, Dror and Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same counter always has the same words, so an entry's
 * number does not depend on which entries were looked at before it.
 *
 * @param out receives the two words, as unsigned numbers
 */
export function threefry(key: WordPair, counterLow: number, counterHigh: number, out: Uint32Array): void {
  // The three words that are added in turn, one place further every four rounds.
  let k0 = key[0] | 0;
  let k1 = key[1] | 0;
  let k2 = PARITY ^ k0 ^ k1;
  let x = (counterLow + k0) | 0;
  let y = (counterHigh + k1) | 0;
  for (let injection = 1; injection <= ROUNDS / 4; injection++) {
    const first = injection % 2 === 1;
    x = (x + y) | 0;
    y = rotateLeft(y, first ? 13 : 17) ^ x;
    x = (x + y) | 0;
    y = rotateLeft(y, first ? 15 : 29) ^ x;
    x = (x + y) | 0;
    y = rotateLeft(y, first ? 26 : 16) ^ x;
    x = (x + y) | 0;
    y = rotateLeft(y, first ? 6 : 24) ^ x;
    const spent = k0;
    k0 = k1;
    k1 = k2;
    k2 = spent;
    x = (x + k0) | 0;
    y = (y + k1 + injection) | 0;
  }
  out[0] = x;
  out[1] = y;
}

/** FNV-1a hash of a text's UTF-16 code units, 32 bits. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/**
 * A stream of uniform random numbers, one per entry of one tensor: entry i uses word i mod 2 of the counter
 * (⌊i/2⌋ mod 2³², ⌊i/2³³⌋). The key is made of the recipe's seed, the module's name, the adapter's position and which tensor
 * of it is meant, so no two tensors share numbers.
 */
export class EntryRandom {
  readonly #key: WordPair;
  readonly #words = new Uint32Array(2);
  #pair = -1;

  constructor(seed: number, module: string, adapter: number, tensor: string) {
    const low = seed % 2 ** 32;
    const high = Math.floor(seed / 2 ** 32);
    this.#key = [low, hashText(`${high}/${module}/${adapter}/${tensor}`)];
  }

  /** The number of one entry: a multiple of 2⁻³² in [0, 1). */
  at(index: number): number {
    const pair = Math.floor(index / 2);
    if (pair !== this.#pair) {
      threefry(this.#key, pair % 2 ** 32, Math.floor(pair / 2 ** 32), this.#words);
      this.#pair = pair;
    }
    return this.#words[index % 2]! / 2 ** 32;
  }
}
