import { openAdapter, openSafetensors } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { loadDeltas } from "../load_deltas.ts";

const ROOT = new URL("../../../../", import.meta.url).pathname;
const EXAMPLE = `${ROOT}examples/tiny-llama`;

export const TASKS = ["language", "category", "speech", "syllables"] as const;
export type Task = (typeof TASKS)[number];

export const BASE = `${EXAMPLE}/base`;

/** Where a task's test rows are. */
export function testRows(task: Task): string {
  return `${EXAMPLE}/tasks/${task}.test.jsonl`;
}

/** The deltas of a task's own adapter. */
export async function adapterDeltas(device: Device, task: Task): Promise<Deltas> {
  using adapter = await openAdapter(`${EXAMPLE}/adapters/${task}`);
  return await loadDeltas(device, adapter);
}

/** What Transformers computed in float32 for one sequence of each task. */
export interface Reference {
  tokens(task: Task): Uint32Array;
  logits(task: Task): Float32Array;
  baseLogits(task: Task): Float32Array;
  /** Inputs of adapted modules when the language adapter runs its sequence. */
  readonly languageInputs: ReadonlyMap<string, Float32Array>;
}

export async function openReference(): Promise<Reference> {
  using file = await openSafetensors(`${ROOT}tests/fixtures/tiny-llama/forward.safetensors`);
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

/** lora_alpha / r of the example's adapters. */
export const ADAPTER_SCALE = 2;

/** What PyTorch computed for the language adapter, by `tests/conformance/write_gradients.py`. */
export async function openGradients(): Promise<
  { readonly tokens: Uint32Array; readonly gradients: ReadonlyMap<string, Float32Array> }
> {
  using file = await openSafetensors(`${ROOT}tests/fixtures/tiny-llama/gradients.safetensors`);
  const gradients = new Map<string, Float32Array>();
  for (const [name, tensor] of file.tensors) gradients.set(name, await tensor.readFloat32());
  return { tokens: Uint32Array.from(gradients.get("input_ids")!), gradients };
}
