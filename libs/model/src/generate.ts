import type { Tensor } from "@lora-loom/tensor";
import { rolesOf } from "./architecture.ts";
import type { Deltas, GenerateOptions } from "./base_model.ts";
import { checkSequences, windowed } from "./batch.ts";
import { type DecoderConfig, windowOf } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { ModelError } from "./errors.ts";
import { assertFinite } from "./finite.ts";
import { foldDeltas } from "./folded_weights.ts";
import { KeyValueCache } from "./key_value_cache.ts";
import { argmax } from "./ops/argmax.ts";
import { gatherRows } from "./ops/rows.ts";
import { promptGroups, rowLimits, withKeyValueBytes } from "./prompt_groups.ts";

const NO_DELTAS: Deltas = new Map();
export const BAD_LOGITS =
  "see that the adapter belongs to this base model, and that its scale and weight are sensible";

/** A prompt on its way to a completion. */
interface Completion {
  /** Tokens whose keys and values are cached. */
  cached: number;
  /** What the next pass has to read: the prompt at first, then the newest token. */
  pending: Uint32Array;
  /** First of its rows in the cache. */
  readonly firstRow: number;
  readonly tokens: number[];
}

/**
 * Greedy decoding of all prompts together: one pass over the prompts, then one pass per new token over those that have not
 * ended, with cached keys and values and one read-back per pass. Prompts are split into groups only where a device could
 * not bind the activations of all, or where their keys and values would take more than `keyValueBytes`.
 */
export async function generateGreedily(
  decoder: Decoder,
  prompts: readonly Uint32Array[],
  deltas: Deltas,
  options: GenerateOptions,
  keyValueBytes: number,
): Promise<Uint32Array[]> {
  const { maxNewTokens } = options;
  checkSequences(prompts, decoder.config, maxNewTokens);
  checkRotaryLengths(prompts, decoder.config, maxNewTokens);
  using folded = foldDeltas(decoder, deltas);
  folded.reservePositions(Math.max(...prompts.map((prompt) => prompt.length)) + maxNewTokens);
  const completions: Uint32Array[] = [];
  const limits = withKeyValueBytes(rowLimits(decoder), decoder, keyValueBytes);
  for (const group of promptGroups(prompts, maxNewTokens, limits)) {
    completions.push(...await completeGroup(folded, group, options));
  }
  return completions;
}

/**
 * With `longrope`, a sequence that outgrows the length first trained on gets other angles from its first token on, so what is cached
 * of it would no longer hold.
 */
function checkRotaryLengths(
  prompts: readonly Uint32Array[],
  { rope }: DecoderConfig,
  maxNewTokens: number,
): void {
  if (rope?.scaling.type !== "longrope") return;
  const { originalLength } = rope.scaling;
  prompts.forEach(({ length }, index) => {
    if (length > originalLength || length + maxNewTokens <= originalLength) return;
    throw new ModelError(
      "sequence_too_long",
      `sequence ${index} may grow from ${length} to ${
        length + maxNewTokens
      } tokens; the model's rotary embedding ` +
        `changes beyond ${originalLength}`,
      "shorten the text, or ask for fewer new tokens",
      `sequence ${index}`,
    );
  });
}

async function completeGroup(
  decoder: Decoder,
  prompts: readonly Uint32Array[],
  { maxNewTokens, eos, signal }: GenerateOptions,
): Promise<Uint32Array[]> {
  const ends = new Set([eos].flat());
  const completions = startCompletions(prompts, maxNewTokens);
  using cache = new KeyValueCache(decoder.device, decoder.config, cacheRows(prompts, maxNewTokens));
  let active = maxNewTokens > 0 ? completions : [];
  while (active.length > 0) {
    signal?.throwIfAborted();
    const next = await nextTokens(decoder, active, cache);
    active.forEach((completion, index) => {
      completion.cached += completion.pending.length;
      completion.pending = next.subarray(index, index + 1);
      completion.tokens.push(next[index]!);
    });
    active = active.filter(({ tokens }) => tokens.length < maxNewTokens && !ends.has(tokens.at(-1)!));
  }
  return completions.map(({ tokens }) => Uint32Array.from(tokens));
}

/** The last token is never read back in, so it needs no row. */
function cacheRows(prompts: readonly Uint32Array[], maxNewTokens: number): number {
  return prompts.reduce((sum, prompt) => sum + prompt.length + Math.max(0, maxNewTokens - 1), 0);
}

function startCompletions(prompts: readonly Uint32Array[], maxNewTokens: number): Completion[] {
  let firstRow = 0;
  return prompts.map((prompt) => {
    const completion = { cached: 0, pending: prompt, firstRow, tokens: [] };
    firstRow += cacheRows([prompt], maxNewTokens);
    return completion;
  });
}

/** Runs the pending tokens of each completion and picks the likeliest token after its last. */
async function nextTokens(
  decoder: Decoder,
  active: readonly Completion[],
  cache: KeyValueCache,
): Promise<Uint32Array> {
  using pass = new Pass(decoder, active, cache);
  using last = await pass.run();
  using _head = await decoder.weights.holdHead();
  using logits = decoder.logits(last);
  // What is not finite after the prompts comes from weights or deltas, and shows at once.
  if (active[0]!.cached === 0) await assertFinite(new Map([["logits", logits]]), BAD_LOGITS);
  using best = argmax(logits);
  return await decoder.device.download(best) as Uint32Array;
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
class Pass implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #tokens: Uint32Array;
  readonly #positions: Tensor;
  readonly #cacheRows: Tensor;
  readonly #places: Uint32Array;
  readonly #lastRows: Tensor;
  readonly #lastPositions: Tensor;
  /** What rows see, by window: of all rows, and of the last ones. */
  readonly #spans = new Map<number | undefined, { readonly all: Tensor; readonly last: Tensor }>();

  constructor(readonly decoder: Decoder, active: readonly Completion[], readonly cache: KeyValueCache) {
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
