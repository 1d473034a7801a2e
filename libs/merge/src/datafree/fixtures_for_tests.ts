import { readFile } from "node:fs/promises";
import type { Device } from "@lora-loom/tensor";
import { assert } from "@std/assert";
import type { WeightedFactors } from "../methods/method.ts";
import type { HostFactors } from "./entries.ts";

const ROOT = new URL("../../../../", import.meta.url);

interface TensorHeader {
  readonly dtype: string;
  readonly shape: readonly [number, number];
  readonly data_offsets: readonly [number, number];
}

/** A PEFT folder of the repository by module: read here by hand, so that nothing is shared with what is tested. */
export async function readFixture(folder: string): Promise<Map<string, HostFactors>> {
  const directory = new URL(`${folder}/`, ROOT);
  const config = JSON.parse(await readFile(new URL("adapter_config.json", directory), "utf8"));
  const bytes = new Uint8Array(await readFile(new URL("adapter_model.safetensors", directory)));
  const headerLength = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)));
  const tensor = (name: string) => {
    const { dtype, shape, data_offsets } = header[name] as TensorHeader;
    assert(dtype === "F32", `${name} is ${dtype}`);
    const raw = bytes.slice(8 + headerLength + data_offsets[0], 8 + headerLength + data_offsets[1]);
    return { shape, values: Float64Array.from(new Float32Array(raw.buffer)) };
  };
  const modules = new Map<string, HostFactors>();
  for (const name of Object.keys(header)) {
    if (!name.endsWith(".lora_A.weight")) continue;
    const a = tensor(name), b = tensor(name.replace("lora_A", "lora_B"));
    const [rank, inFeatures] = a.shape;
    modules.set(name.replace(/^base_model\.model\./, "").replace(/\.lora_A\.weight$/, ""), {
      rank,
      inFeatures,
      outFeatures: b.shape[0],
      scale: config.lora_alpha / rank,
      a: a.values,
      b: b.values,
    });
  }
  return modules;
}

/** Factors on a device, as the engine hands them to a method. */
export function uploadSource(
  device: Device,
  factors: HostFactors,
  weight: number,
  adapter: number,
): WeightedFactors {
  const { rank, inFeatures, outFeatures, scale, a, b } = factors;
  return {
    a: device.upload(Float64Array.from(a), [rank, inFeatures]),
    b: device.upload(Float64Array.from(b), [outFeatures, rank]),
    scale,
    weight,
    adapter,
  };
}

/** ΔW of factors as a dense `[out, in]` matrix. */
export function denseDelta(
  { a, b, scale, rank, inFeatures, outFeatures }: HostFactors,
): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: outFeatures * inFeatures }, (_, index) => {
    const o = Math.floor(index / inFeatures), i = index % inFeatures;
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += b[o * rank + r]! * a[r * inFeatures + i]!;
    return scale * sum;
  });
}
