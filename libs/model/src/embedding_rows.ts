import type { ModelWeights } from "@lora-loom/formats";
import type { Device, Tensor } from "@lora-loom/tensor";
import { notHeld } from "./errors.ts";
import { disposableOnce } from "./holds.ts";
import { gatherRows } from "./ops/rows.ts";
import { WeightLoader, type WeightRequest } from "./weight_loader.ts";

/** What one holder asked for. */
interface Table {
  readonly loader: WeightLoader;
  readonly rows: Tensor;
  /** The row of each token. */
  readonly places: ReadonlyMap<number, number>;
}

/** The embeddings of the tokens that are held, read row by row: the whole matrix can be larger than any layer. */
export class EmbeddingRows implements Disposable {
  readonly #tables = new Set<Table>();

  constructor(readonly device: Device, readonly stored: ModelWeights, readonly request: WeightRequest) {}

  /** @throws {ModelError} `non_finite`; {FormatError} for a file that cannot be read */
  async hold(tokens: Uint32Array): Promise<Disposable> {
    const wanted = [...new Set(tokens)].sort((a, b) => a - b);
    const loader = new WeightLoader(this.device, this.stored);
    try {
      const rows = await loader.takeRows(this.request, wanted);
      await loader.checkFinite();
      const table = { loader, rows, places: new Map(wanted.map((token, place) => [token, place])) };
      this.#tables.add(table);
      return disposableOnce(() => {
        if (this.#tables.delete(table)) loader[Symbol.dispose]();
      });
    } catch (error) {
      loader[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The embeddings of tokens, `[tokens, hidden]`.
   *
   * @throws {ModelError} `weights_not_held`
   */
  of(tokens: Uint32Array): Tensor {
    for (const { rows, places } of this.#tables) {
      if (!tokens.every((token) => places.has(token))) continue;
      using ids = this.device.upload(tokens.map((token) => places.get(token)!), [tokens.length], "u32");
      return gatherRows(rows, ids);
    }
    throw notHeld(this.request.name);
  }

  [Symbol.dispose](): void {
    for (const { loader } of this.#tables) loader[Symbol.dispose]();
    this.#tables.clear();
  }
}
