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
import type { WeightRequest } from "./weight_loader.ts";

/** A matrix or gain with the bias that goes with it, in the model's files. */
export interface StoredPair {
  readonly weight: WeightRequest;
  readonly bias?: WeightRequest;
}

/** Where a decoder's weights are in its files, and in what shapes. */
export class DecoderLayout {
  constructor(readonly architecture: Architecture, readonly config: DecoderConfig) {}

  get embeddings(): WeightRequest {
    return this.#vocabulary(this.architecture.embeddings);
  }

  /** The embeddings themselves where they are tied. */
  get head(): WeightRequest {
    return this.config.tiedEmbeddings ? this.embeddings : this.#vocabulary(this.architecture.head);
  }

  get finalNorm(): StoredPair {
    return this.#norm(this.architecture.finalNorm, this.config.hiddenSize);
  }

  /** Of learned positions. */
  get positions(): WeightRequest | undefined {
    const { positions } = this.architecture;
    const { maxPositions, hiddenSize } = this.config;
    return positions === undefined
      ? undefined
      : { name: `${positions}.weight`, shape: [maxPositions, hiddenSize] };
  }

  /** One role's share of its module. */
  linear(layer: number, role: LinearRole): StoredPair {
    const { architecture, config } = this;
    const name = linearName(architecture, layer, role);
    const [out, inFeatures] = moduleShape(architecture, config, role);
    const rows = outputsOf(architecture, config, role) ?? [0, out] as const;
    const transposed = architecture.transposed ?? false;
    const weight = { name: `${name}.weight`, shape: [out, inFeatures], rows, transposed };
    if (!architecture.hasBias(role, config)) return { weight };
    return { weight, bias: { name: `${name}.bias`, shape: [out], rows } };
  }

  /** The norms that a layer has. */
  norms(layer: number): (readonly [NormRole, StoredPair])[] {
    const { architecture, config } = this;
    return NORM_ROLES.flatMap((role) => {
      const name = architecture.norms[role];
      if (name === undefined) return [];
      const width = role === "query" || role === "key" ? config.headDim : config.hiddenSize;
      return [[role, this.#norm(architecture.layerPrefix(layer) + name, width)] as const];
    });
  }

  /** Every matrix of every layer. */
  *matrices(): Iterable<WeightRequest> {
    for (let layer = 0; layer < this.config.layers; layer++) {
      for (const role of rolesOf(this.architecture)) yield this.linear(layer, role).weight;
    }
  }

  #vocabulary(name: string): WeightRequest {
    return { name: `${name}.weight`, shape: [this.config.vocabularySize, this.config.hiddenSize] };
  }

  #norm(name: string, width: number): StoredPair {
    const { normKind, gainOffset = 0 } = this.architecture;
    const weight = { name: `${name}.weight`, shape: [width], offset: gainOffset };
    return normKind === "layer" ? { weight, bias: { name: `${name}.bias`, shape: [width] } } : { weight };
  }
}
