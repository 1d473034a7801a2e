import { exampleModel } from "./example_model.ts";

export { type Task, TASKS, testRows } from "./example_model.ts";

export const TINY_LLAMA = exampleModel("tiny-llama");
export const { base: BASE, adapterDeltas, openReference } = TINY_LLAMA;

/** The references come from a model that was cast to bfloat16 as a whole before it ran in float32. */
export const AS_REFERENCE = { rotaryFrequencies: "bfloat16" } as const;
