import { cast, type Device, type DType, type Tensor } from "@lora-loom/tensor";
import type { ModelWeights, StoredTensor } from "@lora-loom/formats";
import {
  type Architecture,
  LINEAR_ROLES,
  linearName,
  type LinearRole,
  linearShape,
  NORM_ROLES,
} from "./architecture.ts";
import type { DecoderConfig } from "./config.ts";
import { ModelError } from "./errors.ts";
import { assertFinite } from "./finite.ts";
import type { DecoderWeights, LayerWeights, Linear } from "./weights.ts";

const DTYPES: Readonly<Record<string, DType>> = { BF16: "bf16", F16: "f16", F32: "f32" };

/**
 * Puts a decoder's weights on a device, one tensor at a time. They cross in their stored 16-bit form and are widened there.
 *
 * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`, `non_finite`
 */
export async function loadWeights(
  device: Device,
  architecture: Architecture,
  config: DecoderConfig,
  stored: ModelWeights,
): Promise<DecoderWeights> {
  const loader = new Loader(device, stored);
  try {
    const embeddings = await loader.load(`${architecture.embeddings}.weight`, [
      config.vocabularySize,
      config.hiddenSize,
    ]);
    const head = config.tiedEmbeddings
      ? embeddings
      : await loader.load(`${architecture.head}.weight`, [config.vocabularySize, config.hiddenSize]);
    const finalNorm = await loader.load(`${architecture.finalNorm}.weight`, [config.hiddenSize]);
    const layers: LayerWeights[] = [];
    for (let layer = 0; layer < config.layers; layer++) {
      layers.push(await loadLayer(loader, architecture, config, layer));
    }
    await loader.checkFinite();
    return {
      embeddings,
      head,
      finalNorm,
      layer: (index) => layers[index]!,
      [Symbol.dispose]: () => loader[Symbol.dispose](),
    };
  } catch (error) {
    loader[Symbol.dispose]();
    throw error;
  }
}

async function loadLayer(
  loader: Loader,
  architecture: Architecture,
  config: DecoderConfig,
  layer: number,
): Promise<LayerWeights> {
  const linears: Partial<Record<LinearRole, Linear>> = {};
  for (const role of LINEAR_ROLES) {
    const name = linearName(architecture, layer, role);
    const shape = linearShape(config, role);
    const weight = await loader.load(`${name}.weight`, shape);
    linears[role] = architecture.hasBias(role, config)
      ? { weight, bias: await loader.load(`${name}.bias`, [shape[0]]) }
      : { weight };
  }
  const norms: Record<string, Tensor> = {};
  for (const role of NORM_ROLES) {
    const name = architecture.norms[role];
    if (name === undefined) continue;
    const width = role === "query" || role === "key" ? config.headDim : config.hiddenSize;
    norms[role] = await loader.load(`${architecture.layerPrefix(layer)}${name}.weight`, [width]);
  }
  return { linears: linears as LayerWeights["linears"], norms: norms as unknown as LayerWeights["norms"] };
}

/** Everything loaded so far, by name. */
class Loader implements Disposable {
  readonly #loaded = new Map<string, Tensor>();

  constructor(readonly device: Device, readonly stored: ModelWeights) {}

  /** Loads a tensor as f32. */
  async load(name: string, shape: readonly number[]): Promise<Tensor> {
    const tensor = this.#find(name, shape);
    const bytes = await tensor.read();
    const raw = await this.device.uploadStreamed(bytes, shape, this.#dtypeOf(tensor));
    const widened = raw.dtype === "f32" ? raw : cast(raw, "f32");
    if (widened !== raw) raw.dispose();
    this.#loaded.set(name, widened);
    return widened;
  }

  checkFinite(): Promise<void> {
    return assertFinite(this.#loaded, `fetch the model again: ${this.stored.path} is damaged`);
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#loaded.values()) tensor.dispose();
  }

  #find(name: string, shape: readonly number[]): StoredTensor {
    const tensor = this.stored.tensors.get(name);
    const where = `${this.stored.path} ${name}`;
    if (!tensor) {
      throw new ModelError(
        "missing_weight",
        `the model's files hold no ${name} of shape [${shape}]`,
        "fetch all files of the model, and see that config.json belongs to them",
        where,
      );
    }
    if (tensor.shape.length === shape.length && shape.every((size, axis) => tensor.shape[axis] === size)) {
      return tensor;
    }
    throw new ModelError(
      "wrong_weight_shape",
      `${name} has shape [${tensor.shape}], config.json asks for [${shape}]`,
      "see that config.json belongs to these weights",
      where,
    );
  }

  #dtypeOf(tensor: StoredTensor): DType {
    const dtype = DTYPES[tensor.dtype];
    if (dtype) return dtype;
    throw new ModelError(
      "unsupported_dtype",
      `${tensor.name} is stored as ${tensor.dtype}; expected BF16, F16 or F32`,
      "use the unquantised base model",
      `${this.stored.path} ${tensor.name}`,
    );
  }
}
