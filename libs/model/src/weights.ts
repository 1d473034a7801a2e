import type { Tensor } from "@lora-loom/tensor";
import type { LinearRole, NormRole } from "./architecture.ts";
import type { Residency } from "./residency.ts";

/** A linear module: weight `[out, in]`, f32 or as it is stored, and, in some families, bias `[out]`. */
export interface Linear {
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

/** One decoder layer's weights; norms and biases are f32. */
export interface LayerWeights {
  readonly linears: Readonly<Record<Exclude<LinearRole, "gate">, Linear> & { readonly gate?: Linear }>;
  readonly norms:
    & { readonly attention: Tensor; readonly mlp: Tensor }
    & Readonly<Partial<Record<NormRole, Tensor>>>;
  /** Of layer norms. */
  readonly normBiases?: Readonly<Partial<Record<NormRole, Tensor>>>;
}

/** What is small enough to be on the device all the time, whatever the size of the model. */
export interface SmallWeights {
  readonly finalNorm: Tensor;
  readonly finalNormBias?: Tensor;
  /** Of learned positions, `[maxPositions, hidden]`. */
  readonly positions?: Tensor;
}

/**
 * A decoder's weights. Matrices of layers, embeddings and head may be asked for while they are held, which is always where the
 * weights are resident.
 */
export interface DecoderWeights extends SmallWeights, Disposable {
  readonly residency: Residency;
  /** Rows of the embeddings, `[tokens, hidden]`. */
  embed(tokens: Uint32Array): Tensor;
  /** `[vocabulary, hidden]`; the embeddings themselves where they are tied. */
  readonly head: Tensor;
  /** Norms and biases of a layer, and those of its matrices that are held. */
  layer(index: number): LayerWeights;
  holdLinears(layer: number, roles: readonly LinearRole[]): Promise<Disposable>;
  holdEmbeddings(tokens: Uint32Array): Promise<Disposable>;
  holdHead(): Promise<Disposable>;
  /** Says what will be held next, so that it can be read meanwhile. */
  expect(layer: number, roles: readonly LinearRole[]): void;
}
