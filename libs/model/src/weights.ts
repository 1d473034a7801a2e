import type { Tensor } from "@lora-loom/tensor";
import type { LinearRole, NormRole } from "./architecture.ts";

/** A linear module: weight `[out, in]` and, in some families, bias `[out]`. */
export interface Linear {
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

/** One decoder layer's weights, all f32. */
export interface LayerWeights {
  readonly linears: Readonly<Record<Exclude<LinearRole, "gate">, Linear> & { readonly gate?: Linear }>;
  readonly norms:
    & { readonly attention: Tensor; readonly mlp: Tensor }
    & Readonly<Partial<Record<NormRole, Tensor>>>;
  /** Of layer norms. */
  readonly normBiases?: Readonly<Partial<Record<NormRole, Tensor>>>;
}

/** A decoder's weights. Layers are asked for one at a time, so that an implementation need not hold them all. */
export interface DecoderWeights extends Disposable {
  /** `[vocabulary, hidden]` */
  readonly embeddings: Tensor;
  /** `[vocabulary, hidden]`; the embeddings themselves where they are tied. */
  readonly head: Tensor;
  readonly finalNorm: Tensor;
  readonly finalNormBias?: Tensor;
  /** Of learned positions, `[maxPositions, hidden]`. */
  readonly positions?: Tensor;
  /** Valid until another layer is asked for. */
  layer(index: number): LayerWeights;
}
