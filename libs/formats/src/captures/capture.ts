import { extname } from "node:path";
import { FormatError } from "../errors.ts";
import { openNpz } from "../npz/read.ts";
import { openSafetensors } from "../safetensors/read.ts";
import type { StoredTensor, TensorFile } from "../tensors/tensor_file.ts";

/** What was captured of one module's inputs. */
export interface CapturedModule {
  /** The module's path in the base model. */
  readonly name: string;
  /** `inputs`: X, a row for each token or position. `gram`: XᵀX. */
  readonly kind: "inputs" | "gram";
  /** The module's inputs, so columns of X. */
  readonly features: number;
  /** Rows of X; undefined of a Gram matrix. */
  readonly rows: number | undefined;
  /** [rows, features] row-major, leading dimensions flattened; or [features, features]. */
  readonly tensor: StoredTensor;
}

/** The inputs that some framework recorded while a model ran with one adapter. */
export interface Capture {
  readonly path: string;
  readonly modules: ReadonlyMap<string, CapturedModule>;
  readonly files: readonly string[];
  close(): void;
  [Symbol.dispose](): void;
}

const GRAM = ".gram";
/** Names of a model's weights and an adapter's factors. */
const OF_WEIGHTS = /\.(weight|bias|alpha)$|\.(lora|hada|lokr|oft)_/;

/**
 * Opens a capture: a `.npz` or `.safetensors` file with an array for each module, named by the module's path. The array
 * is X [rows, features] (further dimensions in front are rows too), or with `.gram` behind the name XᵀX
 * [features, features].
 *
 * @throws {FormatError} `capture_unknown`, `capture_invalid`, `duplicate_module`, `no_modules`, and the errors of the file
 */
export async function openCapture(path: string): Promise<Capture> {
  const file = await openFile(path);
  try {
    const modules = new Map<string, CapturedModule>();
    for (const tensor of file.tensors.values()) {
      const module = toModule(tensor, file.path);
      if (modules.has(module.name)) throw duplicate(module.name, file.path);
      modules.set(module.name, module);
    }
    if (modules.size === 0) throw empty(file.path);
    const close = () => file.close();
    return { path: file.path, modules, files: file.files, close, [Symbol.dispose]: close };
  } catch (error) {
    file.close();
    throw error;
  }
}

async function openFile(path: string): Promise<TensorFile> {
  switch (extname(path)) {
    case ".npz":
      return await openNpz(path);
    case ".safetensors":
      return await openSafetensors(path);
    default:
      throw new FormatError(
        "capture_unknown",
        `${path} is neither a .npz nor a .safetensors file`,
        "Save the capture with numpy.savez or safetensors.",
        path,
      );
  }
}

function toModule(tensor: StoredTensor, path: string): CapturedModule {
  if (OF_WEIGHTS.test(tensor.name)) throw weightInstead(tensor.name, path);
  const isGram = tensor.name.endsWith(GRAM);
  const name = isGram ? tensor.name.slice(0, -GRAM.length) : tensor.name;
  const features = tensor.shape.at(-1) ?? 0;
  const rows = tensor.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const isSound = tensor.shape.length >= 2 && features > 0 && rows > 0 && /^(F|BF)\d/.test(tensor.dtype) &&
    (!isGram || (tensor.shape.length === 2 && rows === features));
  if (!isSound || name === "") throw invalid(tensor, isGram, path);
  return { name, kind: isGram ? "gram" : "inputs", features, rows: isGram ? undefined : rows, tensor };
}

function invalid({ name, dtype, shape }: StoredTensor, isGram: boolean, path: string): FormatError {
  const expected = isGram ? "floats [features, features]" : "floats [rows, features]";
  return new FormatError(
    "capture_invalid",
    `${name} is ${dtype} [${shape.join(", ")}], ${expected} were expected`,
    "Record the module's input as a matrix, a row for each token.",
    `${path} ${name}`,
  );
}

function weightInstead(name: string, path: string): FormatError {
  return new FormatError(
    "capture_invalid",
    `${name} is the name of a weight or a factor; a capture names modules, and holds what they read`,
    "Record the inputs of the modules, each under the module's path.",
    `${path} ${name}`,
  );
}

function duplicate(name: string, path: string): FormatError {
  return new FormatError(
    "duplicate_module",
    `${name} was captured both as inputs and as a Gram matrix`,
    "Keep one of the two.",
    `${path} ${name}`,
  );
}

function empty(path: string): FormatError {
  return new FormatError(
    "no_modules",
    `${path} holds no arrays`,
    "Record the inputs of the adapted modules.",
    path,
  );
}
