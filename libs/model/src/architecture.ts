import type { DecoderConfig } from "./config.ts";

/** The seven linear modules of a decoder layer. */
export const LINEAR_ROLES = ["query", "key", "value", "output", "gate", "up", "down"] as const;
export type LinearRole = (typeof LINEAR_ROLES)[number];

/** The norms of a decoder layer; those of queries and keys act on each head, and exist in some families only. */
export const NORM_ROLES = ["attention", "mlp", "query", "key"] as const;
export type NormRole = (typeof NORM_ROLES)[number];

/**
 * What sets one family of decoders apart, as data: what its files call things, and how its configuration is read. All
 * share the arrangement norm → attention → add, norm → gated MLP → add.
 */
export interface Architecture {
  /** `model_type` in `config.json`. */
  readonly modelType: string;
  /** What `architectures` in `config.json` calls the class with an output projection. */
  readonly className: string;
  readonly embeddings: string;
  readonly finalNorm: string;
  readonly head: string;
  /** Prefix of a layer's module names. */
  layerPrefix(layer: number): string;
  /** Module names after the layer's prefix. */
  readonly linears: Readonly<Record<LinearRole, string>>;
  readonly norms: Readonly<Partial<Record<NormRole, string>>>;
  /** Whether a linear module has a bias. */
  hasBias(role: LinearRole, config: DecoderConfig): boolean;
  /** @throws {ModelError} for settings that this family does not support here */
  parseConfig(json: unknown, where: string): DecoderConfig;
}

/** Name of a linear module, such as `model.layers.0.self_attn.q_proj`. */
export function linearName(architecture: Architecture, layer: number, role: LinearRole): string {
  return architecture.layerPrefix(layer) + architecture.linears[role];
}

/** Shape `[out, in]` of a linear module's weight. */
export function linearShape(config: DecoderConfig, role: LinearRole): readonly [number, number] {
  const queryWidth = config.queryHeads * config.headDim;
  const keyValueWidth = config.keyValueHeads * config.headDim;
  switch (role) {
    case "query":
      return [queryWidth, config.hiddenSize];
    case "key":
    case "value":
      return [keyValueWidth, config.hiddenSize];
    case "output":
      return [config.hiddenSize, queryWidth];
    case "gate":
    case "up":
      return [config.mlpSize, config.hiddenSize];
    case "down":
      return [config.hiddenSize, config.mlpSize];
  }
}
