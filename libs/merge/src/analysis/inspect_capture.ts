import { extname } from "node:path";
import { FormatError, openCapture } from "@lora-loom/formats";

/** What was captured of one module. */
export interface CapturedModuleInspection {
  readonly name: string;
  /** `inputs`: X; `gram`: XᵀX. */
  readonly kind: "inputs" | "gram";
  /** Of X; null of a Gram matrix. */
  readonly rows: number | null;
  readonly features: number;
  readonly dtype: string;
  readonly bytes: number;
}

/** What a capture is, in the names of `inspect --json`. */
export interface CaptureInspection {
  readonly path: string;
  readonly format: "capture";
  readonly files: readonly string[];
  readonly bytes: number;
  readonly modules: readonly CapturedModuleInspection[];
}

/**
 * Says what the capture at a path is; no values are read.
 *
 * @throws {FormatError} when it is none
 */
export async function inspectCapture(path: string): Promise<CaptureInspection> {
  using capture = await openCapture(path);
  const modules = [...capture.modules.values()].map(({ name, kind, rows, features, tensor }) => ({
    name,
    kind,
    rows: rows ?? null,
    features,
    dtype: tensor.dtype,
    bytes: tensor.byteLength,
  }));
  const bytes = modules.reduce((sum, module) => sum + module.bytes, 0);
  return { path: capture.path, format: "capture", files: capture.files, bytes, modules };
}

/**
 * What the capture at a path is; undefined where the path is none. Only files that an adapter cannot be are looked at: `.npz`, and
 * `.safetensors` without the names of an adapter's factors or a model's weights.
 */
export async function tryInspectCapture(path: string): Promise<CaptureInspection | undefined> {
  if (extname(path) !== ".safetensors") return undefined;
  try {
    return await inspectCapture(path);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** Whether only a capture can be at this path. */
export function isCapturePath(path: string): boolean {
  return extname(path) === ".npz";
}
