/** Helpers of this library's tests: temporary folders, and safetensors bytes put together without the writer. */
import { assert, assertEquals, assertLessOrEqual, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { gaussians, inTemporaryFolder } from "@lora-loom/testing";
import type { Adapter, LoraModule } from "./adapter.ts";
import { FormatError } from "./errors.ts";
import type { OpenOptions } from "./layouts/layout.ts";
import { openAdapter } from "./open_adapter.ts";
import { REFUSALS } from "./refusals_for_tests.ts";

export { inTemporaryFolder };

/** The repository's root, whatever folder the tests are started from. */
export const REPOSITORY = new URL("../../../", import.meta.url).pathname;

/** The bytes of a safetensors file: length prefix, header text, buffer. */
export function rawFile(
  header: string | Uint8Array,
  buffer: Uint8Array = new Uint8Array(0),
  length?: bigint,
): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + text.length + buffer.length);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  file.set(text, 8);
  file.set(buffer, 8 + text.length);
  return file;
}

export interface RawTensor {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/** A safetensors file of F32 tensors, one after the other in the order given. */
export function rawFloat32File(
  tensors: Readonly<Record<string, RawTensor>>,
  metadata?: Record<string, string>,
): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  const all: number[] = [];
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape, data_offsets: [all.length * 4, (all.length + values.length) * 4] };
    for (let i = 0; i < values.length; i++) all.push(values[i]!);
  }
  return rawFile(JSON.stringify(header), new Uint8Array(new Float32Array(all).buffer));
}

/** A tensor of zeros. */
export function zeros(...shape: number[]): RawTensor {
  return { shape, values: new Float32Array(shape.reduce((product, dimension) => product * dimension, 1)) };
}

/** Writes a PEFT folder from a configuration's keys and F32 tensors by full key. */
export async function writePeftFolder(
  folder: string,
  config: Record<string, unknown> | string,
  tensors: Readonly<Record<string, RawTensor>>,
): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  const text = typeof config === "string" ? config : JSON.stringify({ peft_type: "LORA", ...config });
  await Deno.writeTextFile(join(folder, "adapter_config.json"), text);
  await Deno.writeFile(join(folder, "adapter_model.safetensors"), rawFloat32File(tensors));
  return folder;
}

/** The two factors of a module under PEFT's keys, filled with zeros. */
export function factors(
  module: string,
  rank: number,
  inFeatures: number,
  outFeatures: number,
): Record<string, RawTensor> {
  return {
    [`base_model.model.${module}.lora_A.weight`]: zeros(rank, inFeatures),
    [`base_model.model.${module}.lora_B.weight`]: zeros(outFeatures, rank),
  };
}

/** Asserts a rejection with this code, and the message and fix that {@linkcode REFUSALS} expects of it, and returns the error. */
export async function assertRefused(body: () => PromiseLike<unknown>, code: string): Promise<FormatError> {
  const error = await assertRejects(body, FormatError);
  assertEquals(error.code, code, `${error.code}: ${error.message}`);
  const expected = REFUSALS[code];
  assert(expected, `refusals_for_tests.ts has no ${code}`);
  assertMatch(error.message, expected[0], `${code} says ${JSON.stringify(error.message)}`);
  assertMatch(error.fix, expected[1], `${code} advises ${JSON.stringify(error.fix)}`);
  assert(error.where !== "", code);
  return error;
}

/** A tensor of normally distributed numbers. */
export function random(seed: number, ...shape: number[]): RawTensor {
  const count = shape.reduce((product, dimension) => product * dimension, 1);
  return { shape, values: new Float32Array(gaussians(count, seed)) };
}

/** A tensor of rank 0 with one number. */
export function scalar(value: number): RawTensor {
  return { shape: [], values: [value] };
}

/** ΔW = s·B·A entry by entry in float64, by its definition: [out, in], flattened. */
export async function denseDelta(module: LoraModule): Promise<Float64Array> {
  const { scale, rank, inFeatures, outFeatures } = module;
  const [a, b] = [await module.a.readFloat32(), await module.b.readFloat32()];
  const result = new Float64Array(outFeatures * inFeatures);
  for (let i = 0; i < outFeatures; i++) {
    for (let k = 0; k < rank; k++) {
      const factor = scale * b[i * rank + k]!;
      for (let j = 0; j < inFeatures; j++) result[i * inFeatures + j]! += factor * a[k * inFeatures + j]!;
    }
  }
  return result;
}

/** Asserts that no entry differs by more than `tolerance` of the largest. */
export function assertClose(found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assertEquals(found.length, expected.length);
  let [largest, worst] = [0, 0];
  for (let i = 0; i < found.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    worst = Math.max(worst, Math.abs(found[i]! - expected[i]!));
  }
  assertLessOrEqual(worst, tolerance * largest);
}

/** Writes a single safetensors file with these tensors, opens it and hands it to `check`. */
export function withFile(
  tensors: Readonly<Record<string, RawTensor>>,
  check: (adapter: Adapter, path: string) => void | Promise<void>,
  options: OpenOptions & { readonly metadata?: Record<string, string> } = {},
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = join(folder, "file.safetensors");
    await Deno.writeFile(path, rawFloat32File(tensors, options.metadata));
    using adapter = await openAdapter(path, options);
    await check(adapter, path);
  });
}

/** Asserts that a single file with these tensors is refused with this code, and returns the error. */
export async function assertFileRefused(
  code: string,
  tensors: Readonly<Record<string, RawTensor>>,
  options: OpenOptions & { readonly metadata?: Record<string, string> } = {},
): Promise<FormatError> {
  let error: FormatError | undefined;
  await inTemporaryFolder(async (folder) => {
    const path = join(folder, "file.safetensors");
    await Deno.writeFile(path, rawFloat32File(tensors, options.metadata));
    error = await assertRefused(() => openAdapter(path, options), code);
  });
  return error!;
}
