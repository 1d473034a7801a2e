import { type CapturedModule, type StoredTensor, widen } from "@lora-loom/formats";
import type { CapturedInputs } from "@lora-loom/iteris";
import type { Device, Tensor } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";

/** Bytes of rows that are read together. A compressed array is inflated once for each piece, so pieces are large. */
const PIECE_BYTES = 64 * 2 ** 20;

/** What was captured of a module as the solver takes it; nothing is read before the solver asks. */
export async function capturedInputs(
  device: Device,
  module: CapturedModule,
  path: string,
): Promise<CapturedInputs> {
  if (module.kind === "gram") return { kind: "gram", values: await gramValues(module.tensor, path) };
  return { kind: "inputs", rows: module.rows!, batches: () => batchesOf(device, module, path) };
}

/** A Gram matrix keeps the digits that it has: small α needs them. */
async function gramValues(
  tensor: StoredTensor,
  path: string,
): Promise<Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>> {
  const values = tensor.dtype === "F64"
    ? new Float64Array((await tensor.read()).buffer)
    : await tensor.readFloat32();
  return checked(values, tensor, path);
}

async function* batchesOf(
  device: Device,
  { tensor, features }: CapturedModule,
  path: string,
): AsyncIterable<Tensor> {
  const first = tensor.shape[0]!;
  const step = Math.max(1, Math.floor(PIECE_BYTES * first / tensor.byteLength));
  for (let start = 0; start < first; start += step) {
    const bytes = await tensor.readRows(start, Math.min(start + step, first));
    const values = checked(widen(tensor.dtype, bytes, path), tensor, path);
    yield device.upload(values, [values.length / features, features], "f32");
  }
}

function checked<Values extends Float32Array | Float64Array>(
  values: Values,
  { name }: StoredTensor,
  path: string,
): Values {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) throw notFinite(values[i]!, name, path);
  }
  return values;
}

function notFinite(value: number, name: string, path: string): MergeError {
  return new MergeError(
    "capture_not_finite",
    `${name} holds ${value}, expected finite numbers`,
    "record it again, in float32: values that leave the range of float16 become infinite there",
    `${path}: ${name}`,
  );
}
