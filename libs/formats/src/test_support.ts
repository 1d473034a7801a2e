/** Helpers of this library's tests: temporary folders, and safetensors bytes put together without the writer. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { FormatError } from "./errors.ts";

/** The repository's root, whatever folder the tests are started from. */
export const REPOSITORY = new URL("../../../", import.meta.url).pathname;

/** Runs `body` with a folder of its own, removed afterwards. */
export async function inTemporaryFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "loom-formats-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

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

/** Asserts a rejection with this code, with all four fields filled, and returns the error. */
export async function assertRefused(body: () => PromiseLike<unknown>, code: string): Promise<FormatError> {
  const error = await assertRejects(body, FormatError);
  assertEquals(error.code, code, `${error.code}: ${error.message}`);
  assertEquals([error.message, error.fix, error.where].filter((text) => text === ""), []);
  return error;
}
