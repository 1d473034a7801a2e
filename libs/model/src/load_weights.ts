import type { ModelWeights } from "@lora-loom/formats";
import type { Device, Tensor } from "@lora-loom/tensor";
import { type Architecture, type LinearRole, type NormRole, rolesOf } from "./architecture.ts";
import type { DecoderConfig } from "./config.ts";
import { DecoderLayout, type StoredPair } from "./decoder_layout.ts";
import { gatherRows } from "./ops/rows.ts";
import { NO_HOLD } from "./residency.ts";
import { WeightLoader } from "./weight_loader.ts";
import type { DecoderWeights, LayerWeights, Linear, SmallWeights } from "./weights.ts";

/**
 * Puts all of a decoder's weights on a device, one tensor at a time. They cross in their stored 16-bit form and are widened there.
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
    const layout = new DecoderLayout(architecture, config);
    const embeddings = await loader.take(layout.embeddings);
    const head = config.tiedEmbeddings ? embeddings : await loader.take(layout.head);
    const small = await loadSmallWeights(loader, layout);
    const layers: LayerWeights[] = [];
    for (let layer = 0; layer < config.layers; layer++) layers.push(await loadLayer(loader, layout, layer));
    await loader.checkFinite();
    const hold = () => Promise.resolve(NO_HOLD);
    return {
      ...small,
      residency: "resident",
      embed(tokens) {
        using ids = device.upload(tokens, [tokens.length], "u32");
        return gatherRows(embeddings, ids);
      },
      head,
      layer: (index) => layers[index]!,
      holdLinears: hold,
      holdEmbeddings: hold,
      holdHead: hold,
      expect() {},
      [Symbol.dispose]: () => loader[Symbol.dispose](),
    };
  } catch (error) {
    loader[Symbol.dispose]();
    throw error;
  }
}

/** The final norm and learned positions. */
export async function loadSmallWeights(loader: WeightLoader, layout: DecoderLayout): Promise<SmallWeights> {
  const { weight, bias } = await loadPair(loader, layout.finalNorm);
  const positions = layout.positions && await loader.take(layout.positions);
  return { finalNorm: weight, ...(bias && { finalNormBias: bias }), ...(positions && { positions }) };
}

/** A layer's norms. */
export async function loadNorms(
  loader: WeightLoader,
  layout: DecoderLayout,
  layer: number,
): Promise<Pick<LayerWeights, "norms" | "normBiases">> {
  const norms: Partial<Record<NormRole, Tensor>> = {};
  const normBiases: Partial<Record<NormRole, Tensor>> = {};
  for (const [role, stored] of layout.norms(layer)) {
    const { weight, bias } = await loadPair(loader, stored);
    norms[role] = weight;
    if (bias) normBiases[role] = bias;
  }
  return { norms: norms as LayerWeights["norms"], normBiases };
}

async function loadLayer(loader: WeightLoader, layout: DecoderLayout, layer: number): Promise<LayerWeights> {
  const linears: Partial<Record<LinearRole, Linear>> = {};
  for (const role of rolesOf(layout.architecture)) {
    linears[role] = await loadPair(loader, layout.linear(layer, role));
  }
  return { linears: linears as LayerWeights["linears"], ...await loadNorms(loader, layout, layer) };
}

async function loadPair(loader: WeightLoader, { weight, bias }: StoredPair): Promise<Linear> {
  const loaded = await loader.take(weight);
  return bias ? { weight: loaded, bias: await loader.take(bias) } : { weight: loaded };
}
