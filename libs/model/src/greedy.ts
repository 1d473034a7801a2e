import type { Tensor } from "@lora-loom/tensor";
import type { GenerateOptions } from "./base_model.ts";
import { assertFinite } from "./finite.ts";
import { argmax } from "./ops/argmax.ts";

const BAD_LOGITS =
  "see that the adapter belongs to this base model, and that its scale and weight are sensible";

/**
 * Lets completions grow by a token a pass until each has ended.
 *
 * @param next runs a pass over those that have not, and gives the next token of each
 */
export async function growCompletions<Completion extends { readonly tokens: number[] }>(
  completions: readonly Completion[],
  { maxNewTokens, eos, signal }: GenerateOptions,
  next: (active: readonly Completion[]) => Promise<Uint32Array>,
): Promise<Uint32Array[]> {
  const ends = new Set([eos].flat());
  let active = maxNewTokens > 0 ? completions : [];
  while (active.length > 0) {
    signal?.throwIfAborted();
    const tokens = await next(active);
    active.forEach((completion, index) => completion.tokens.push(tokens[index]!));
    active = active.filter(({ tokens }) => tokens.length < maxNewTokens && !ends.has(tokens.at(-1)!));
  }
  return completions.map(({ tokens }) => Uint32Array.from(tokens));
}

/**
 * The likeliest token of each row of logits.
 *
 * @param isFirst whether they are those after the prompts: what is not finite comes from weights or deltas, and shows at once
 * @throws {ModelError} `non_finite`
 */
export async function likeliestTokens(logits: Tensor, isFirst: boolean): Promise<Uint32Array> {
  if (isFirst) await assertFinite(new Map([["logits", logits]]), BAD_LOGITS);
  using best = argmax(logits);
  return await logits.device.download(best) as Uint32Array;
}
