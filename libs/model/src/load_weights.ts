import type { ModelWeights } from "@lora-loom/formats";
import type { Device, Tensor } from "@lora-loom/tensor";
import {
  type Architecture,
  linearName,
  type LinearRole,
  moduleShape,
  NORM_ROLES,
  type NormRole,
  outputsOf,
  rolesOf,
} from "./architecture.ts";
import type { DecoderConfig } from "./config.ts";
import { WeightLoader } from "./weight_loader.ts";
import type { DecoderWeights, LayerWeights, Linear } from "./weights.ts";

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
  const weights = new WeightLoader(device, stored);
  try {
    const loader = new DecoderLoader(weights, architecture, config);
    const vocabulary = [config.vocabularySize, config.hiddenSize];
    const embeddings = await weights.load(`${architecture.embeddings}.weight`, vocabulary);
    const head = config.tiedEmbeddings
      ? embeddings
      : await weights.load(`${architecture.head}.weight`, vocabulary);
    const finalNorm = await loader.norm(architecture.finalNorm, config.hiddenSize);
    const positions = architecture.positions === undefined
      ? undefined
      : await weights.load(`${architecture.positions}.weight`, [config.maxPositions, config.hiddenSize]);
    const layers: LayerWeights[] = [];
    for (let layer = 0; layer < config.layers; layer++) layers.push(await loader.layer(layer));
    await weights.checkFinite();
    return {
      embeddings,
      head,
      finalNorm: finalNorm.gain,
      ...(finalNorm.bias && { finalNormBias: finalNorm.bias }),
      ...(positions && { positions }),
      layer: (index) => layers[index]!,
      [Symbol.dispose]: () => weights[Symbol.dispose](),
    };
  } catch (error) {
    weights[Symbol.dispose]();
    throw error;
  }
}

/** Loads the parts of a decoder as its architecture arranges them. */
class DecoderLoader {
  constructor(
    readonly weights: WeightLoader,
    readonly architecture: Architecture,
    readonly config: DecoderConfig,
  ) {}

  async layer(layer: number): Promise<LayerWeights> {
    const linears: Partial<Record<LinearRole, Linear>> = {};
    for (const role of rolesOf(this.architecture)) linears[role] = await this.#linear(layer, role);
    const norms: Partial<Record<NormRole, Tensor>> = {};
    const normBiases: Partial<Record<NormRole, Tensor>> = {};
    for (const role of NORM_ROLES) {
      const name = this.architecture.norms[role];
      if (name === undefined) continue;
      const width = role === "query" || role === "key" ? this.config.headDim : this.config.hiddenSize;
      const { gain, bias } = await this.norm(this.architecture.layerPrefix(layer) + name, width);
      norms[role] = gain;
      if (bias) normBiases[role] = bias;
    }
    return {
      linears: linears as LayerWeights["linears"],
      norms: norms as LayerWeights["norms"],
      normBiases,
    };
  }

  async norm(name: string, width: number): Promise<{ readonly gain: Tensor; readonly bias?: Tensor }> {
    const { normKind, gainOffset = 0 } = this.architecture;
    const gain = await this.weights.load(`${name}.weight`, [width], { offset: gainOffset });
    return normKind === "layer" ? { gain, bias: await this.weights.load(`${name}.bias`, [width]) } : { gain };
  }

  /** One role's share of its module. */
  async #linear(layer: number, role: LinearRole): Promise<Linear> {
    const { architecture, config } = this;
    const name = linearName(architecture, layer, role);
    const [out, inFeatures] = moduleShape(architecture, config, role);
    const range = outputsOf(architecture, config, role) ?? [0, out];
    const options = { rows: range, transposed: architecture.transposed ?? false };
    const weight = await this.weights.load(`${name}.weight`, [out, inFeatures], options);
    if (!architecture.hasBias(role, config)) return { weight };
    return { weight, bias: await this.weights.load(`${name}.bias`, [out], { rows: range }) };
  }
}
