import { ServerError } from "../errors.ts";

/** Bytes at the start of a safetensors file that give the length of its header, little-endian. */
const LENGTH_BYTES = 8;

/** Looks at the start of a safetensors file as it streams in, and refuses a header that is too long to be read. */
export class HeaderGuard {
  readonly #start = new Uint8Array(LENGTH_BYTES);
  #seen = 0;

  constructor(private readonly name: string, private readonly limit: number) {}

  /** @throws {ServerError} `header_too_large` */
  check(chunk: Uint8Array): void {
    if (this.#seen >= LENGTH_BYTES) return;
    const part = chunk.subarray(0, LENGTH_BYTES - this.#seen);
    this.#start.set(part, this.#seen);
    this.#seen += part.length;
    if (this.#seen < LENGTH_BYTES) return;
    const length = new DataView(this.#start.buffer).getBigUint64(0, true);
    if (length <= BigInt(this.limit)) return;
    throw new ServerError(
      413,
      "header_too_large",
      `the first bytes of ${this.name} announce a header of ${length} bytes, at most ${this.limit} are taken`,
      "check that it is a safetensors file, whole and unpacked; the server's limit is --limit headerBytes=N",
      this.name,
    );
  }
}
