import type { Deltas, GenerateOptions } from "./base_model.ts";
import { checkSequences } from "./batch.ts";
import type { DecoderConfig } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { type CachedCompletion, DecodingPass } from "./decoding_pass.ts";
import { ModelError } from "./errors.ts";
import { foldDeltas } from "./folded_weights.ts";
import { growCompletions, likeliestTokens } from "./greedy.ts";
import { KeyValueCache } from "./key_value_cache.ts";
import { promptGroups, rowLimits, withKeyValueBytes } from "./prompt_groups.ts";

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
  options: GenerateOptions,
): Promise<Uint32Array[]> {
  const { maxNewTokens } = options;
  using cache = new KeyValueCache(decoder.device, decoder.config, cacheRows(prompts, maxNewTokens));
  return await growCompletions(startCompletions(prompts, maxNewTokens), options, async (active) => {
    const next = await nextTokens(decoder, active, cache);
    active.forEach((completion, index) => {
      completion.cached += completion.pending.length;
      completion.pending = next.subarray(index, index + 1);
    });
    return next;
  });
}

/** The last token is never read back in, so it needs no row. */
function cacheRows(prompts: readonly Uint32Array[], maxNewTokens: number): number {
  return prompts.reduce((sum, prompt) => sum + prompt.length + Math.max(0, maxNewTokens - 1), 0);
}

function startCompletions(prompts: readonly Uint32Array[], maxNewTokens: number): CachedCompletion[] {
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
  active: readonly CachedCompletion[],
  cache: KeyValueCache,
): Promise<Uint32Array> {
  using pass = new DecodingPass(decoder, active, cache);
  using last = await pass.run();
  using _head = await decoder.weights.holdHead();
  using logits = decoder.logits(last);
  return await likeliestTokens(logits, active[0]!.cached === 0);
}
