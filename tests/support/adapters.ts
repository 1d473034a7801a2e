import { gaussians } from "@lora-loom/testing";
import { type PlainTensor, readTensors, safetensorsBytes } from "./safetensors.ts";

const PREFIX = "base_model.model.";

/** One module of an adapter for tests. */
export interface ModuleSpec {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly rank: number;
}

type Values = Record<string, { shape: readonly number[]; values: Float64Array }>;

/** Random factors of modules, under PEFT's keys. */
export function randomFactors(modules: readonly ModuleSpec[], seed: number): Values {
  return Object.fromEntries(modules.flatMap(({ name, inFeatures, outFeatures, rank }, index) => [
    [`${PREFIX}${name}.lora_A.weight`, {
      shape: [rank, inFeatures],
      values: gaussians(rank * inFeatures, seed + 2 * index),
    }],
    [`${PREFIX}${name}.lora_B.weight`, {
      shape: [outFeatures, rank],
      values: gaussians(outFeatures * rank, seed + 2 * index + 1),
    }],
  ]));
}

/** The configuration of a PEFT adapter. */
export function peftConfig(
  modules: readonly ModuleSpec[],
  extra: Record<string, unknown> = {},
): Record<string, unknown> {
  return {
    peft_type: "LORA",
    r: modules[0]!.rank,
    lora_alpha: 2 * modules[0]!.rank,
    target_modules: [...new Set(modules.map(({ name }) => name.split(".").at(-1)))],
    rank_pattern: Object.fromEntries(modules.map(({ name, rank }) => [name.replaceAll(".", "\\."), rank])),
    alpha_pattern: Object.fromEntries(
      modules.map(({ name, rank }) => [name.replaceAll(".", "\\."), 2 * rank]),
    ),
    ...extra,
  };
}

/** Writes a PEFT folder; `bytes` instead of a sound weight file spoils it. */
export async function writeAdapter(
  folder: string,
  modules: readonly ModuleSpec[],
  { seed = 1, bytes, config }: { seed?: number; bytes?: Uint8Array; config?: Record<string, unknown> } = {},
): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(
    `${folder}/adapter_model.safetensors`,
    bytes ?? safetensorsBytes(randomFactors(modules, seed)),
  );
  await Deno.writeTextFile(`${folder}/adapter_config.json`, JSON.stringify(config ?? peftConfig(modules)));
  return folder;
}

/** Writes a PEFT folder with the bias of a B factor, which can only be merged without it. */
export async function writeBiasedAdapter(folder: string, seed = 1): Promise<string> {
  const module = { name: "model.layers.0.self_attn.q_proj", inFeatures: 64, outFeatures: 64, rank: 4 };
  const bytes = safetensorsBytes({
    ...randomFactors([module], seed),
    [`${PREFIX}${module.name}.lora_B.bias`]: { shape: [64], values: gaussians(64, seed + 7) },
  });
  return await writeAdapter(folder, [module], { bytes });
}

/** A dense delta, `[out, in]`. */
export interface DenseDelta {
  readonly outFeatures: number;
  readonly inFeatures: number;
  readonly values: Float64Array;
}

/** s · B · A in float64, by the definition. */
function multiply(b: PlainTensor, a: PlainTensor, scale: number): DenseDelta {
  const [outFeatures, rank] = b.shape as [number, number];
  const inFeatures = a.shape[1]!;
  const values = new Float64Array(outFeatures * inFeatures);
  for (let o = 0; o < outFeatures; o++) {
    for (let r = 0; r < rank; r++) {
      const factor = scale * b.values[o * rank + r]!;
      for (let i = 0; i < inFeatures; i++) {
        values[o * inFeatures + i]! += factor * a.values[r * inFeatures + i]!;
      }
    }
  }
  return { outFeatures, inFeatures, values };
}

/** Every module's delta of a PEFT folder with one rank and alpha. */
export async function denseDeltas(folder: string): Promise<Map<string, DenseDelta>> {
  const config = JSON.parse(await Deno.readTextFile(`${folder}/adapter_config.json`)) as {
    r: number;
    lora_alpha: number;
  };
  const tensors = await readTensors(`${folder}/adapter_model.safetensors`);
  const deltas = new Map<string, DenseDelta>();
  for (const [key, a] of tensors) {
    if (!key.endsWith(".lora_A.weight")) continue;
    const b = tensors.get(key.replace("lora_A", "lora_B"))!;
    const name = key.slice(PREFIX.length, -".lora_A.weight".length);
    deltas.set(name, multiply(b, a, config.lora_alpha / config.r));
  }
  return deltas;
}

/** Σ factor · delta, module by module. */
export function sumDeltas(
  parts: readonly (readonly [deltas: ReadonlyMap<string, DenseDelta>, factor: number])[],
): Map<string, DenseDelta> {
  const sums = new Map<string, DenseDelta>();
  for (const [deltas, factor] of parts) {
    for (const [name, delta] of deltas) {
      const sum = sums.get(name)?.values ?? new Float64Array(delta.values.length);
      delta.values.forEach((value, index) => sum[index]! += factor * value);
      sums.set(name, { ...delta, values: sum });
    }
  }
  return sums;
}

/** ‖X − Y‖_F / ‖Y‖_F over all modules together. */
export function relativeDistance(
  x: ReadonlyMap<string, DenseDelta>,
  y: ReadonlyMap<string, DenseDelta>,
): number {
  let distance = 0;
  let norm = 0;
  for (const name of new Set([...x.keys(), ...y.keys()])) {
    const left = x.get(name)?.values;
    const right = y.get(name)?.values;
    const length = (left ?? right)!.length;
    for (let i = 0; i < length; i++) {
      distance += ((left?.[i] ?? 0) - (right?.[i] ?? 0)) ** 2;
      norm += (right?.[i] ?? 0) ** 2;
    }
  }
  return Math.sqrt(distance / norm);
}
