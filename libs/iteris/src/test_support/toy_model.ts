import {
  type CpuTensor,
  defineOperation,
  type Device,
  gemm,
  type Kernel,
  type Tensor,
} from "@lora-loom/tensor";
import { gaussians, seeded } from "@lora-loom/testing";
import type { Activations, BaseModel, Delta, Deltas, Site, Stage } from "../base_model.ts";
import type { Task } from "../request.ts";

/** Sizes of a toy model: every layer has two modules that read the stream and one that writes it. */
export interface ToySizes {
  readonly layers: number;
  readonly hidden: number;
  readonly inner: number;
  readonly vocabulary: number;
}

/** The weights of a toy model on the host. */
export interface ToyWeights extends ToySizes {
  /** `[vocabulary, hidden]`. */
  readonly embedding: Float64Array<ArrayBuffer>;
  /** W0 by module, `[out, in]`. */
  readonly modules: ReadonlyMap<string, Float64Array<ArrayBuffer>>;
}

export const SMALL: ToySizes = { layers: 2, hidden: 7, inner: 5, vocabulary: 11 };

/** Random weights. */
export function toyWeights(sizes: ToySizes, seed: number): ToyWeights {
  const { layers, hidden, inner, vocabulary } = sizes;
  const modules = new Map<string, Float64Array<ArrayBuffer>>();
  for (let layer = 0; layer < layers; layer++) {
    modules.set(
      `layers.${layer}.q`,
      scaledGaussians(inner * hidden, 1 / Math.sqrt(hidden), seed + 10 * layer + 1),
    );
    modules.set(
      `layers.${layer}.k`,
      scaledGaussians(inner * hidden, 1 / Math.sqrt(hidden), seed + 10 * layer + 2),
    );
    modules.set(
      `layers.${layer}.o`,
      scaledGaussians(hidden * inner, 1 / Math.sqrt(inner), seed + 10 * layer + 3),
    );
  }
  return { ...sizes, embedding: gaussians(vocabulary * hidden, seed), modules };
}

/** `count` normal numbers times `factor`. */
export function scaledGaussians(count: number, factor: number, seed: number): Float64Array<ArrayBuffer> {
  return gaussians(count, seed).map((x) => x * factor);
}

/** A residual network small enough to be checked by hand: h ← h + o(tanh(mean of q(x) so far + k(x))), x = tanh(h). */
export class ToyModel implements BaseModel {
  readonly stages: readonly Stage[];
  readonly #weights = new Map<string, Tensor>();
  readonly #embedding: Tensor;

  constructor(readonly device: Device, readonly toy: ToyWeights) {
    const { hidden, inner } = toy;
    this.stages = Array.from({ length: toy.layers }, (_, layer) => [
      stage(2 * layer, `layers.${layer}.in`, [
        site(`layers.${layer}.q`, hidden, inner, false),
        site(`layers.${layer}.k`, hidden, inner, false),
      ]),
      stage(2 * layer + 1, `layers.${layer}.out`, [site(`layers.${layer}.o`, inner, hidden, true)]),
    ]).flat();
    for (const { module, inFeatures, outFeatures } of this.stages.flatMap(({ sites }) => sites)) {
      this.#weights.set(module, device.upload(toy.modules.get(module)!, [outFeatures, inFeatures]));
    }
    this.#embedding = device.upload(toy.embedding, [toy.vocabulary, hidden]);
  }

  begin(sequences: readonly Uint32Array[]): Activations {
    const tokens = sequences.flatMap((sequence) => [...sequence]);
    const chosen = new Float64Array(tokens.length * this.toy.vocabulary);
    tokens.forEach((token, row) => chosen[row * this.toy.vocabulary + token] = 1);
    using oneHot = this.device.upload(chosen, [tokens.length, this.toy.vocabulary]);
    const stream = gemm(oneHot, this.#embedding);
    return activations(sequences.map(({ length }) => length), tanh(stream), stream);
  }

  advance(at: Stage, { lengths, input, stream }: Activations, deltas: Deltas): Activations {
    const outputs = at.sites.map(({ module }) => this.#apply(module, input, deltas.get(module)));
    if (outputs.length === 2) {
      using averaging = this.#averaging(lengths);
      using inner = gemm(averaging, outputs[0]!, { into: outputs[1]!, beta: 1 });
      outputs[0]!.dispose();
      return activations(lengths, tanh(inner), copy(stream));
    }
    using identity = this.#identity(stream.shape[0]!);
    const next = gemm(identity, stream, { into: outputs[0]!, beta: 1 });
    return activations(lengths, tanh(next), next);
  }

  restore(_stage: Stage, lengths: readonly number[], tensors: ReadonlyMap<string, Tensor>): Activations {
    return activations(lengths, tensors.get("input")!, tensors.get("stream")!);
  }

  weight(module: string): Tensor {
    return this.#weights.get(module)!;
  }

  #apply(module: string, input: Tensor, delta: Delta | undefined): Tensor {
    const output = gemm(input, this.weight(module), { transposeB: true });
    if (!delta) return output;
    using inner = gemm(input, delta.a, { transposeB: true });
    return gemm(inner, delta.b, { transposeB: true, into: output, beta: 1 });
  }

  /** Row t holds 1/(t+1) for the tokens of its sequence up to t. */
  #averaging(lengths: readonly number[]): Tensor {
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const matrix = new Float64Array(total * total);
    let start = 0;
    for (const length of lengths) {
      for (let t = 0; t < length; t++) {
        for (let s = 0; s <= t; s++) matrix[(start + t) * total + start + s] = 1 / (t + 1);
      }
      start += length;
    }
    return this.device.upload(matrix, [total, total]);
  }

  #identity(size: number): Tensor {
    const matrix = new Float64Array(size * size);
    for (let i = 0; i < size; i++) matrix[i * size + i] = 1;
    return this.device.upload(matrix, [size, size]);
  }
}

function stage(index: number, name: string, sites: readonly Site[]): Stage {
  return { index, name, sites };
}

function site(module: string, inFeatures: number, outFeatures: number, writesStream: boolean): Site {
  return { module, inFeatures, outFeatures, writesStream };
}

function activations(lengths: readonly number[], input: Tensor, stream: Tensor): Activations {
  return {
    lengths,
    input,
    stream,
    tensors: new Map([["input", input], ["stream", stream]]),
    [Symbol.dispose]() {
      input.dispose();
      stream.dispose();
    },
  };
}

const WORKGROUP = 64;

function elementwise(name: string, expression: string, f: (x: number) => number): (x: Tensor) => Tensor {
  const kernel: Kernel = {
    name,
    buffers: [{ name: "x", element: "f32", access: "read" }, {
      name: "y",
      element: "f32",
      access: "read_write",
    }],
    params: [["count", "u32"]],
    code: `@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < params.count) { y[id.x] = ${expression}; }
    }`,
  };
  return defineOperation<[Tensor], Tensor>({
    name,
    kernels: [kernel],
    gpu(device, x) {
      const y = device.empty(x.shape);
      const count = x.shape.reduce((product, size) => product * size, 1);
      device.dispatch(kernel, [x, y], [count], [Math.ceil(count / WORKGROUP)]);
      return y;
    },
    cpu: (device, x) => device.wrap((x as CpuTensor).floats.map(f), x.shape),
  });
}

const tanh = elementwise("toy_tanh", "tanh(x[id.x])", Math.tanh);
const copy = elementwise("toy_copy", "x[id.x]", (x) => x);

/** Low-rank factors on the host. */
export interface HostDelta {
  readonly rank: number;
  readonly a: Float64Array<ArrayBuffer>;
  readonly b: Float64Array<ArrayBuffer>;
}

/** A task on the host: factors by module, and text. */
export interface HostTask {
  readonly name: string;
  readonly weight?: number;
  readonly deltas: ReadonlyMap<string, HostDelta>;
  readonly sequences: readonly { readonly tokens: Uint32Array<ArrayBuffer>; readonly answerStart: number }[];
}

/** A random task of the toy model. */
export function toyTask(
  toy: ToyWeights,
  { name, rank, samples, seed, without = [] }: {
    readonly name: string;
    readonly rank: number;
    readonly samples: number;
    readonly seed: number;
    /** Modules that the adapter lacks. */
    readonly without?: readonly string[];
  },
): HostTask {
  const deltas = new Map<string, HostDelta>();
  let offset = 1000 * seed;
  for (const [module, weight] of toy.modules) {
    const inFeatures = module.endsWith(".o") ? toy.inner : toy.hidden;
    const outFeatures = weight.length / inFeatures;
    offset += 2;
    if (without.includes(module)) continue;
    deltas.set(module, {
      rank,
      a: scaledGaussians(rank * inFeatures, 0.5, offset),
      b: scaledGaussians(outFeatures * rank, 0.5, offset + 1),
    });
  }
  const random = seeded(seed);
  const sequences = Array.from({ length: samples }, () => {
    const length = 3 + Math.floor(random() * 5);
    const tokens = Uint32Array.from({ length }, () => Math.floor(random() * toy.vocabulary));
    return { tokens, answerStart: length - 2 };
  });
  return { name, deltas, sequences };
}

/** Uploads a host task. */
export function uploadTask(device: Device, toy: ToyWeights, task: HostTask): Task {
  const deltas = new Map<string, Delta>();
  for (const [module, { rank, a, b }] of task.deltas) {
    const inFeatures = module.endsWith(".o") ? toy.inner : toy.hidden;
    deltas.set(module, {
      a: device.upload(a, [rank, inFeatures]),
      b: device.upload(b, [b.length / rank, rank]),
    });
  }
  const { name, sequences, weight } = task;
  return { name, deltas, sequences, ...(weight === undefined ? {} : { weight }) };
}
