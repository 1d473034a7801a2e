import type { DecoderConfig } from "./config.ts";

/** What the linear modules of a decoder layer make. A module may make several of them, stacked in this order. */
const LINEAR_ROLES = ["query", "key", "value", "output", "gate", "up", "down"] as const;
export type LinearRole = (typeof LINEAR_ROLES)[number];

/**
 * The norms of a decoder layer: before attention and MLP, and in some families after them, and of each head's queries and
 * keys.
 */
export const NORM_ROLES = ["attention", "attentionOut", "mlp", "mlpOut", "query", "key"] as const;
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
  /** Module names after the layer's prefix; without a gate, the MLP's activation acts on `up`. */
  readonly linears: Readonly<Record<Exclude<LinearRole, "gate">, string> & { readonly gate?: string }>;
  readonly norms: Readonly<Partial<Record<NormRole, string>>>;
  /** Whether norms are root-mean-square (the default), or take the mean away first and add a bias (arXiv 1607.06450). */
  readonly normKind?: "rms" | "layer";
  /** What stored gains of norms lack. Default 0. */
  readonly gainOffset?: number;
  /** Whether weights are stored `[in, out]`. Default false. */
  readonly transposed?: boolean;
  /** Embeddings of positions, in families that learn them. */
  readonly positions?: string;
  /** Whether a linear module has a bias. */
  hasBias(role: LinearRole, config: DecoderConfig): boolean;
  /** @throws {ModelError} for settings that this family does not support here */
  parseConfig(json: unknown, where: string): DecoderConfig;
}

/** The modules that write the residual stream. */
export type WritingRole = "output" | "down";

/** Norms of what is added to the stream, in families that have them. */
export const POST_NORMS = { output: "attentionOut", down: "mlpOut" } as const satisfies Record<
  WritingRole,
  NormRole
>;

/** Whether a module's output reaches the stream as it is, not through a norm. */
export function writesPlainly({ norms }: Architecture, role: WritingRole): boolean {
  return norms[POST_NORMS[role]] === undefined;
}

/** The roles that a family has. */
export function rolesOf({ linears }: Architecture): LinearRole[] {
  return LINEAR_ROLES.filter((role) => linears[role] !== undefined);
}

/** Name of a role's linear module, such as `model.layers.0.self_attn.q_proj`. */
export function linearName(architecture: Architecture, layer: number, role: LinearRole): string {
  return architecture.layerPrefix(layer) + architecture.linears[role];
}

/** Which of its module's outputs are a role's: first, and one past the last; nothing where they all are. */
export function outputsOf(
  architecture: Architecture,
  config: DecoderConfig,
  role: LinearRole,
): readonly [start: number, end: number] | undefined {
  const sharers = sharersOf(architecture, role);
  if (sharers.length === 1) return undefined;
  const sizes = sharers.map((sharer) => linearShape(config, sharer)[0]);
  const at = sharers.indexOf(role);
  const start = sizes.slice(0, at).reduce((sum, size) => sum + size, 0);
  return [start, start + sizes[at]!];
}

/** The roles of the module that has this one, in their order. */
export function sharersOf(architecture: Architecture, role: LinearRole): LinearRole[] {
  return rolesOf(architecture).filter((other) => architecture.linears[other] === architecture.linears[role]);
}

/** Shape `[out, in]` of a module's weight, whatever its roles. */
export function moduleShape(
  architecture: Architecture,
  config: DecoderConfig,
  role: LinearRole,
): readonly [number, number] {
  const shapes = sharersOf(architecture, role).map((sharer) => linearShape(config, sharer));
  return [shapes.reduce((sum, [out]) => sum + out, 0), shapes[0]![1]];
}

/** Shape `[out, in]` of a role's weight. */
function linearShape(config: DecoderConfig, role: LinearRole): readonly [number, number] {
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
