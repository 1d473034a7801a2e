import type { Tensor } from "@lora-loom/tensor";
import { rolesOf } from "./architecture.ts";
import type { Deltas } from "./base_model.ts";
import { windowed } from "./batch.ts";
import { windowOf } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import type { KeyValueCache } from "./key_value_cache.ts";
import { gatherRows } from "./ops/rows.ts";

/** They are added to the weights beforehand. */
const NO_DELTAS: Deltas = new Map();

/** A prompt on its way to a completion. */
export interface CachedCompletion {
  /** Tokens whose keys and values are cached. */
  cached: number;
  /** What the next pass has to read: the prompt at first, then the newest token. */
  pending: Uint32Array;
  /** First of its rows in the cache. */
  readonly firstRow: number;
  readonly tokens: number[];
}

/** A token to read: where it is in its sequence, and where the sequence is in the cache. */
interface Row {
  readonly token: number;
  readonly position: number;
  /** The row of the table of rotary angles. */
  readonly angle: number;
  readonly firstRow: number;
}

/** One pass through all layers, from the pending tokens to the final norm of each completion's last one. */
export class DecodingPass implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #tokens: Uint32Array;
  readonly #positions: Tensor;
  readonly #cacheRows: Tensor;
  readonly #places: Uint32Array;
  readonly #lastRows: Tensor;
  readonly #lastPositions: Tensor;
  /** What rows see, by window: of all rows, and of the last ones. */
  readonly #spans = new Map<number | undefined, { readonly all: Tensor; readonly last: Tensor }>();

  constructor(readonly decoder: Decoder, active: readonly CachedCompletion[], readonly cache: KeyValueCache) {
    const rows = active.flatMap(({ pending, cached, firstRow }) => {
      const firstAngle = decoder.firstAngle(cached + pending.length);
      return Array.from(pending, (token, index): Row => {
        const position = cached + index;
        return { token, position, angle: firstAngle + position, firstRow };
      });
    });
    let end = 0;
    const last = active.map(({ pending }) => (end += pending.length) - 1);
    const lastOnes = last.map((row) => rows[row]!);
    this.#tokens = Uint32Array.from(rows, ({ token }) => token);
    this.#places = Uint32Array.from(rows, ({ position }) => position);
    this.#positions = this.#upload(rows.map(({ angle }) => angle), [rows.length]);
    this.#cacheRows = this.#upload(rows.map(({ firstRow, position }) => firstRow + position), [rows.length]);
    this.#lastRows = this.#upload(last, [last.length]);
    this.#lastPositions = this.#upload(lastOnes.map(({ angle }) => angle), [last.length]);
    const { config } = decoder;
    const spans = (seeing: readonly Row[], window: number | undefined) =>
      this.#upload(seeing.flatMap(({ firstRow, position }) => windowed(firstRow, position + 1, window)), [
        seeing.length,
        2,
      ]);
    for (
      const window of new Set(Array.from({ length: config.layers }, (_, layer) => windowOf(config, layer)))
    ) {
      this.#spans.set(window, { all: spans(rows, window), last: spans(lastOnes, window) });
    }
  }

  /** `[completions, hidden]` */
  async run(): Promise<Tensor> {
    const { decoder } = this;
    const roles = rolesOf(decoder.architecture);
    const last = decoder.config.layers - 1;
    let stream = await this.#embedded();
    try {
      for (let layer = 0; layer <= last; layer++) {
        using _weights = await decoder.weights.holdLinears(layer, roles);
        // After the last layer comes the first one again, for the next token.
        decoder.weights.expect(layer < last ? layer + 1 : 0, roles);
        stream = layer < last ? this.#layer(layer, stream) : this.#lastLayer(layer, stream);
      }
      return decoder.finalNorm(stream);
    } finally {
      stream.dispose();
    }
  }

  async #embedded(): Promise<Tensor> {
    using _embeddings = await this.decoder.weights.holdEmbeddings(this.#tokens);
    return this.decoder.embed(this.#tokens, this.#places);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #upload(values: readonly number[], shape: readonly number[]): Tensor {
    return this.#owned.use(this.decoder.device.upload(Uint32Array.from(values), shape, "u32"));
  }

  #spansOf(layer: number) {
    return this.#spans.get(windowOf(this.decoder.config, layer))!;
  }

  /** Updates the stream in place. */
  #layer(layer: number, stream: Tensor): Tensor {
    const { decoder } = this;
    using input = decoder.norm(layer, "attention", stream);
    using queries = decoder.queries(layer, input, this.#positions, NO_DELTAS);
    this.#remember(layer, input);
    return this.#finish(layer, queries, this.#spansOf(layer).all, stream);
  }

  /** As any layer, but beyond keys and values only the rows whose logits are asked for matter. */
  #lastLayer(layer: number, whole: Tensor): Tensor {
    const { decoder } = this;
    using before = whole;
    using input = decoder.norm(layer, "attention", before);
    this.#remember(layer, input);
    using lastInput = gatherRows(input, this.#lastRows);
    using queries = decoder.queries(layer, lastInput, this.#lastPositions, NO_DELTAS);
    return this.#finish(layer, queries, this.#spansOf(layer).last, gatherRows(before, this.#lastRows));
  }

  #remember(layer: number, input: Tensor): void {
    using keys = this.decoder.keys(layer, input, this.#positions, NO_DELTAS);
    using values = this.decoder.linear(layer, "value", input, NO_DELTAS);
    this.cache.write(layer, this.#cacheRows, keys, values);
  }

  /** From the queries to the end of the layer; adds to `stream`. */
  #finish(layer: number, queries: Tensor, spans: Tensor, stream: Tensor): Tensor {
    const { decoder } = this;
    using context = decoder.attend(queries, this.cache.keys(layer), this.cache.values(layer), spans);
    decoder.write(layer, "output", context, NO_DELTAS, stream);
    using input = decoder.norm(layer, "mlp", stream);
    using activated = decoder.gatedUp(layer, input, NO_DELTAS);
    decoder.write(layer, "down", activated, NO_DELTAS, stream);
    return stream;
  }
}
