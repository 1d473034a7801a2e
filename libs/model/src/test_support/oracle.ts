import type { TestModel } from "./random_model.ts";

/**
 * A Llama-like forward pass of one sequence in float64, written token by token from the model's definition: vectors as plain
 * arrays, attention as a full softmax, rotary embedding as multiplication of complex numbers. It shares nothing with the
 * library but the names of the weights.
 */
export interface OracleResult {
  /** Logits of each token. */
  readonly logits: readonly (readonly number[])[];
  /** What each linear module read, by token. */
  readonly inputs: ReadonlyMap<string, readonly (readonly number[])[]>;
  /** Residual stream after each layer, by token. */
  readonly streams: readonly (readonly (readonly number[])[])[];
  /** Outputs of the final norm, by token. */
  readonly outputs: readonly (readonly number[])[];
}

type Vector = readonly number[];

/**
 * @param frequencies radians per position of each rotary plane; default θ^(−2i/d)
 * @param offsets what to add to a module's outputs, by token
 */
export function oracleForward(
  { config, weights }: TestModel,
  tokens: ArrayLike<number>,
  deltas: ReadonlyMap<string, readonly Vector[]> = new Map(),
  frequencies?: Vector,
  offsets: ReadonlyMap<string, readonly Vector[]> = new Map(),
): OracleResult {
  const inputs = new Map<string, Vector[]>();
  const dim = config.head_dim;
  const angles = frequencies ??
    Array.from({ length: dim / 2 }, (_, plane) => 1 / Math.pow(config.rope_theta ?? 10000, 2 * plane / dim));
  const tensor = (name: string) => {
    const found = weights.get(name);
    if (!found) throw new Error(`the oracle has no ${name}`);
    return found;
  };
  const vector = (name: string): Vector => [...tensor(name).values];
  const rows = (name: string): Vector[] => {
    const { shape, values } = tensor(name);
    return Array.from(
      { length: shape[0]! },
      (_, row) => [...values.subarray(row * shape[1]!, (row + 1) * shape[1]!)],
    );
  };
  const module = (name: string, x: Vector): Vector => {
    const before = inputs.get(name) ?? [];
    const offset = offsets.get(name)?.[before.length];
    inputs.set(name, [...before, x]);
    const bias = weights.has(`${name}.bias`) ? vector(`${name}.bias`) : undefined;
    const delta = deltas.get(name);
    return rows(`${name}.weight`).map((row, out) =>
      dot(row, x) + (bias?.[out] ?? 0) + (delta ? dot(delta[out]!, x) : 0) + (offset?.[out] ?? 0)
    );
  };
  const norm = (name: string, x: Vector): Vector => {
    const root = Math.sqrt(dot(x, x) / x.length + config.rms_norm_eps);
    return vector(`${name}.weight`).map((gain, i) => gain * x[i]! / root);
  };

  const embeddings = rows("model.embed_tokens.weight");
  let stream: Vector[] = Array.from(tokens, (token) => embeddings[token]!);
  const streams: Vector[][] = [];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    const normed = stream.map((x) => norm(`${prefix}.input_layernorm`, x));
    const heads = (name: string, count: number, turn: boolean) =>
      normed.map((x, position) => {
        const y = module(`${prefix}.self_attn.${name}`, x);
        return Array.from({ length: count }, (_, head) => y.slice(head * dim, (head + 1) * dim))
          .map((head) =>
            weights.has(`${prefix}.self_attn.${name[0]}_norm.weight`)
              ? norm(`${prefix}.self_attn.${name[0]}_norm`, head)
              : head
          )
          .map((head) => turn ? turned(head, position, angles) : head);
      });
    const queries = heads("q_proj", config.num_attention_heads, true);
    const keys = heads("k_proj", config.num_key_value_heads, true);
    const values = heads("v_proj", config.num_key_value_heads, false);
    const shared = config.num_attention_heads / config.num_key_value_heads;
    stream = stream.map((x, t) => {
      const context = queries[t]!.flatMap((query, head) => {
        const group = Math.floor(head / shared);
        const scores = keys.slice(0, t + 1).map((key) => dot(query, key[group]!) / Math.sqrt(dim));
        const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
        return query.map((_, d) =>
          sum(scores.map((score, j) => Math.exp(score) / total * values[j]![group]![d]!))
        );
      });
      return plus(x, module(`${prefix}.self_attn.o_proj`, context));
    });
    stream = stream.map((x) => {
      const input = norm(`${prefix}.post_attention_layernorm`, x);
      const gate = module(`${prefix}.mlp.gate_proj`, input);
      const up = module(`${prefix}.mlp.up_proj`, input);
      return plus(
        x,
        module(`${prefix}.mlp.down_proj`, gate.map((g, i) => g * (1 / (1 + Math.exp(-g))) * up[i]!)),
      );
    });
    streams.push(stream);
  }
  const head = config.tie_word_embeddings ? embeddings : rows("lm_head.weight");
  const outputs = stream.map((x) => norm("model.norm", x));
  return { logits: outputs.map((x) => head.map((row) => dot(row, x))), inputs, streams, outputs };
}

function sum(values: Vector): number {
  return values.reduce((total, value) => total + value, 0);
}

function dot(a: Vector, b: Vector): number {
  return sum(a.map((value, i) => value * b[i]!));
}

function plus(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + b[i]!);
}

/** Each pair (i, i + d/2) as a complex number, times e^(i·position·angle). */
function turned(head: Vector, position: number, angles: Vector): Vector {
  const half = head.length / 2;
  const pairs = angles.map((angle, i) => {
    const re = head[i]!, im = head[i + half]!;
    const magnitude = Math.hypot(re, im), phase = Math.atan2(im, re) + position * angle;
    return [magnitude * Math.cos(phase), magnitude * Math.sin(phase)] as const;
  });
  return [...pairs.map(([re]) => re), ...pairs.map(([, im]) => im)];
}
