import type { Sequence } from "@lora-loom/iteris";
import type { Deltas, Residency } from "@lora-loom/model";
import { throwIfCancelled } from "../errors.ts";
import type { CalibrationRow } from "./rows.ts";
import type { Session } from "./session.ts";

/** Prompts decoded together: bounds the memory of cached keys and values. */
const BATCH = 64;

/** How many of so many prompts are decoded together. A streamed model reads all its weights for every token, whatever their number. */
export function answerBatch(residency: Residency, prompts: number): number {
  return residency === "streamed" ? Math.max(prompts, 1) : BATCH;
}

/** Token ids of each prompt's greedy completion, the end token included where it came in time. */
export async function answer(
  { model, eos }: Session,
  prompts: readonly Uint32Array[],
  deltas: Deltas,
  maxNewTokens: number,
  signal?: AbortSignal,
): Promise<Uint32Array[]> {
  const batch = answerBatch(model.residency, prompts.length);
  const answers: Uint32Array[] = [];
  for (let first = 0; first < prompts.length; first += batch) {
    throwIfCancelled(signal);
    const some = prompts.slice(first, first + batch);
    answers.push(...await model.generate(some, deltas, { maxNewTokens, eos, signal }));
  }
  return answers;
}

function joined(prompt: Uint32Array, completion: Uint32Array): Sequence {
  const tokens = new Uint32Array(prompt.length + completion.length);
  tokens.set(prompt);
  tokens.set(completion, prompt.length);
  return { tokens, answerStart: prompt.length };
}

/** Prompts with the answers that their own adapter gives them: what IterIS is calibrated on. Nothing is labelled. */
export async function answeredSequences(
  session: Session,
  prompts: readonly Uint32Array[],
  deltas: Deltas,
  maxNewTokens: number,
  signal?: AbortSignal,
): Promise<Sequence[]> {
  const answers = await answer(session, prompts, deltas, maxNewTokens, signal);
  return prompts.map((prompt, index) => joined(prompt, answers[index]!));
}

/** Calibration sequences in the order of the rows: prompts are answered, texts stay as they are. */
export async function calibrationSequences(
  session: Session,
  rows: readonly CalibrationRow[],
  deltas: Deltas,
  maxNewTokens: number,
  signal?: AbortSignal,
): Promise<Sequence[]> {
  const encoded = rows.map(({ text, isPrompt }) => ({ tokens: session.tokenizer.encode(text), isPrompt }));
  const prompts = encoded.flatMap(({ tokens, isPrompt }) => isPrompt ? [tokens] : []);
  const answered = await answeredSequences(session, prompts, deltas, maxNewTokens, signal);
  let next = 0;
  return encoded.map(({ tokens, isPrompt }) =>
    isPrompt ? answered[next++]! : { tokens, answerStart: tokens.length }
  );
}
