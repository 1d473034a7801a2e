import type { Device, Tensor } from "@lora-loom/tensor";
import type { ModelWeights } from "@lora-loom/formats";
import {
  type Architecture,
  LINEAR_ROLES,
  linearName,
  type LinearRole,
  linearShape,
  NORM_ROLES,
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
  const loader = new WeightLoader(device, stored);
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
  loader: WeightLoader,
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
