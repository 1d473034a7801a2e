import { openAdapter, openSafetensors } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { loadDeltas } from "../load_deltas.ts";

const FOLDER = new URL("../../../../tests/fixtures/families/", import.meta.url).pathname;

/** One sequence that Transformers ran. */
export interface ReferenceRun {
  readonly name: string;
  /** The prompt, and in an encoder-decoder the answer. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  /** The prompt's length in an encoder-decoder, else the number of tokens. */
  readonly answerStart: number;
  readonly logits: Float32Array;
  readonly adaptedLogits: Float32Array;
}

/** A small model with random weights, and what Transformers and PEFT compute with it. */
export interface FamilyFixture {
  readonly folder: string;
  readonly runs: readonly ReferenceRun[];
  /** What adapted modules read when the base runs the sequence `long`. */
  readonly inputs: ReadonlyMap<string, Float32Array>;
  deltas(device: Device): Promise<Deltas>;
}

/** Reads a folder that `tests/conformance/make_families.py` has made. */
export async function openFamily(name: string): Promise<FamilyFixture> {
  const folder = `${FOLDER}${name}`;
  using file = await openSafetensors(`${folder}/reference.safetensors`);
  const values = new Map<string, Float32Array>();
  for (const [key, tensor] of file.tensors) values.set(key, await tensor.readFloat32());
  const get = (key: string) => {
    const found = values.get(key);
    if (!found) throw new Error(`${folder} lacks ${key}`);
    return found;
  };
  const runs = ["short", "long"].map((label): ReferenceRun => {
    const prompt = get(`${label}.input_ids`);
    // The decoder's first token is its start token, which the model adds by itself.
    const answer = values.get(`${label}.decoder_input_ids`)?.subarray(1) ?? [];
    return {
      name: label,
      tokens: Uint32Array.of(...prompt, ...answer),
      answerStart: prompt.length,
      logits: get(`${label}.logits`),
      adaptedLogits: get(`${label}.adapted_logits`),
    };
  });
  const prefix = "inputs.";
  const inputs = [...values].filter(([key]) => key.startsWith(prefix));
  return {
    folder,
    runs,
    inputs: new Map(inputs.map(([key, value]) => [key.slice(prefix.length), value])),
    async deltas(device) {
      using adapter = await openAdapter(`${folder}/adapter`);
      return await loadDeltas(device, adapter);
    },
  };
}
