/** Captures of the example model: recorded by our own forward passes, written without the libraries' writers. */
import { copy, CpuDevice, type Tensor } from "@lora-loom/tensor";
import { openAdapter } from "@lora-loom/formats";
import { disposeDeltas, loadDeltas, openModel, openTokenizer } from "@lora-loom/model";
import { zipSync } from "fflate";
import type { DenseDelta } from "./adapters.ts";
import { safetensorsBytes } from "./safetensors.ts";

/** A matrix on the host, row-major. */
export interface HostMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** What every module of the model reads while it runs `texts` with the adapter, on the CPU in float64. */
export async function recordInputs(
  base: string,
  adapterPath: string,
  texts: readonly string[],
): Promise<Map<string, HostMatrix>> {
  const device = new CpuDevice();
  using model = await openModel(device, base);
  using adapter = await openAdapter(adapterPath);
  const deltas = await loadDeltas(device, adapter);
  const tokenizer = await openTokenizer(base);
  const copies: { readonly modules: readonly string[]; readonly input: Tensor }[] = [];
  model.forward(texts.map((text) => tokenizer.encode(text)), deltas, {
    observe: ({ sites }, input) => {
      copies.push({ modules: sites.map(({ module }) => module), input: copy(input) });
    },
  }).dispose();
  const inputs = new Map<string, HostMatrix>();
  for (const { modules, input } of copies) {
    const [rows, columns] = input.shape as [number, number];
    const values = Float64Array.from(await device.download(input));
    input.dispose();
    for (const module of modules) inputs.set(module, { rows, columns, values });
  }
  disposeDeltas(deltas);
  return inputs;
}

/** XᵀX in float64. */
export function gramOf({ rows, columns, values }: HostMatrix): HostMatrix {
  const gram = new Float64Array(columns * columns);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const left = values[row * columns + i]!;
      for (let j = 0; j < columns; j++) gram[i * columns + j]! += left * values[row * columns + j]!;
    }
  }
  return { rows: columns, columns, values: gram };
}

/** The bytes of an `.npz` archive as `numpy.savez` writes it. */
export function npzBytes(
  arrays: ReadonlyMap<string, HostMatrix>,
  { type = "<f4", compressed = false }: { type?: "<f4" | "<f8"; compressed?: boolean } = {},
): Uint8Array {
  const files = [...arrays].map(([name, { rows, columns, values }]) => {
    const header = `{'descr': '${type}', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
    const text = new TextEncoder().encode(
      header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11) + "\n",
    );
    const data = type === "<f4" ? Float32Array.from(values) : Float64Array.from(values);
    const bytes = new Uint8Array(10 + text.length + data.byteLength);
    bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, text.length & 255, text.length >> 8]);
    bytes.set(text, 10);
    bytes.set(new Uint8Array(data.buffer), 10 + text.length);
    return [`${name}.npy`, bytes] as const;
  });
  return zipSync(Object.fromEntries(files), { level: compressed ? 6 : 0 });
}

/** The bytes of a safetensors file with the same arrays in F32. */
export function captureSafetensors(arrays: ReadonlyMap<string, HostMatrix>): Uint8Array {
  return safetensorsBytes(
    Object.fromEntries(
      [...arrays].map(([name, { rows, columns, values }]) => [name, { shape: [rows, columns], values }]),
    ),
  );
}

/** x Wᵀ, `[rows, out]`. */
function outputsOf(x: HostMatrix, { values, inFeatures, outFeatures }: DenseDelta): Float64Array {
  const outputs = new Float64Array(x.rows * outFeatures);
  for (let row = 0; row < x.rows; row++) {
    for (let out = 0; out < outFeatures; out++) {
      let sum = 0;
      for (let i = 0; i < inFeatures; i++) {
        sum += x.values[row * inFeatures + i]! * values[out * inFeatures + i]!;
      }
      outputs[row * outFeatures + out] = sum;
    }
  }
  return outputs;
}

function relativeDifference(found: Float64Array, expected: Float64Array): number {
  let difference = 0;
  let norm = 0;
  expected.forEach((value, i) => {
    difference += (found[i]! - value) ** 2;
    norm += value ** 2;
  });
  return Math.sqrt(difference / norm);
}

/** The largest relative difference of a module's outputs on what any of the adapters reads there. */
export function largestOutputDifference(
  found: ReadonlyMap<string, DenseDelta>,
  expected: ReadonlyMap<string, DenseDelta>,
  inputs: readonly ReadonlyMap<string, HostMatrix>[],
): number {
  let largest = 0;
  for (const [module, x] of inputs.flatMap((own) => [...own])) {
    const outputs = [found, expected].map((deltas) => outputsOf(x, deltas.get(module)!));
    largest = Math.max(largest, relativeDifference(outputs[0]!, outputs[1]!));
  }
  return largest;
}
