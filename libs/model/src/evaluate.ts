import type { BaseModel, Deltas } from "./base_model.ts";
import { ModelError } from "./errors.ts";
import type { TaskRow } from "./jsonl.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What {@linkcode evaluate} works on. */
export interface EvaluateOptions {
  readonly model: Pick<BaseModel, "generate">;
  readonly tokenizer: Pick<Tokenizer, "encode" | "decode" | "eosId">;
  readonly deltas: Deltas;
  readonly rows: readonly TaskRow[];
  /** Default 6. */
  readonly maxNewTokens?: number;
  /** Prompts decoded together. Default 400. */
  readonly batch?: number;
  /** Default: the tokenizer's. */
  readonly eos?: number | readonly number[];
}

/** How many greedy completions were right. */
export interface Evaluation {
  /** Share of rows whose completion equals the expected one, both trimmed. */
  readonly accuracy: number;
  readonly n: number;
  /** The completions, trimmed, in the order of the rows. */
  readonly outputs: readonly string[];
}

/**
 * Accuracy of greedy completions. Prompts get the tokenizer's special tokens; a completion ends with the end token or after
 * `maxNewTokens`, and counts when all of it equals the row's completion after trimming.
 *
 * @throws {ModelError} `no_end_token` when neither `eos` nor the tokenizer names one; as `generate` does
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { model, tokenizer, deltas, rows, maxNewTokens = 6, batch = 400 } = options;
  const eos = options.eos ?? tokenizer.eosId;
  if (eos === undefined) {
    throw new ModelError("no_end_token", "the tokenizer names no eos_token", "pass eos", "evaluate");
  }
  const outputs: string[] = [];
  for (let first = 0; first < rows.length; first += batch) {
    const prompts = rows.slice(first, first + batch).map(({ prompt }) => tokenizer.encode(prompt));
    const completions = await model.generate(prompts, deltas, { maxNewTokens, eos });
    for (const tokens of completions) outputs.push(tokenizer.decode(tokens).trim());
  }
  const right = rows.filter(({ completion }, index) => outputs[index] === completion.trim()).length;
  return { accuracy: rows.length > 0 ? right / rows.length : 0, n: rows.length, outputs };
}
