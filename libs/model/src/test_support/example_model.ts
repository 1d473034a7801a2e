import { openAdapter, openSafetensors } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { loadDeltas } from "../load_deltas.ts";

const ROOT = new URL("../../../../", import.meta.url).pathname;

export const TASKS = ["language", "category", "speech", "syllables"] as const;
export type Task = (typeof TASKS)[number];

/** A real model of the examples, with what Transformers computed with it. */
export interface ExampleModel {
  readonly name: string;
  /** Its folder. */
  readonly base: string;
  /** The deltas of a task's own adapter. */
  adapterDeltas(device: Device, task: Task): Promise<Deltas>;
  openReference(): Promise<Reference>;
}

/** What Transformers computed in float32 for one sequence of each task. */
export interface Reference {
  tokens(task: Task): Uint32Array;
  logits(task: Task): Float32Array;
  baseLogits(task: Task): Float32Array;
  /** Inputs of adapted modules when the language adapter runs its sequence. */
  readonly languageInputs: ReadonlyMap<string, Float32Array>;
}

/** Where a task's test rows are. */
export function testRows(task: Task): string {
  return `${ROOT}examples/tiny-llama/tasks/${task}.test.jsonl`;
}

/** The model in a folder of the examples. */
export function exampleModel(name: string): ExampleModel {
  return {
    name,
    base: `${ROOT}examples/${name}/base`,
    async adapterDeltas(device, task) {
      using adapter = await openAdapter(`${ROOT}examples/${name}/adapters/${task}`);
      return await loadDeltas(device, adapter);
    },
    openReference: () => readReference(`${ROOT}tests/fixtures/${name}/forward.safetensors`),
  };
}

async function readReference(path: string): Promise<Reference> {
  using file = await openSafetensors(path);
  const values = new Map<string, Float32Array>();
  for (const [name, tensor] of file.tensors) values.set(name, await tensor.readFloat32());
  const get = (name: string) => {
    const found = values.get(name);
    if (!found) throw new Error(`the fixture lacks ${name}`);
    return found;
  };
  const prefix = "language.inputs.";
  const inputs = [...values].filter(([name]) => name.startsWith(prefix));
  return {
    tokens: (task) => Uint32Array.from(get(`${task}.input_ids`)),
    logits: (task) => get(`${task}.logits`),
    baseLogits: (task) => get(`${task}.base_logits`),
    languageInputs: new Map(inputs.map(([name, tensor]) => [name.slice(prefix.length), tensor])),
  };
}
