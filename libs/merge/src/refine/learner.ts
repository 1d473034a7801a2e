import { adam, type AdamStep, type Delta, type Deltas, disposeDeltas } from "@lora-loom/model";
import { copy, type Device, type Tensor } from "@lora-loom/tensor";
import type { HostArray, HostTensor } from "../resume/packed.ts";

/** Both factors of a module, or anything of their shapes. */
export interface HostPair {
  readonly a: HostTensor;
  readonly b: HostTensor;
}

/** Everything that a learner is, by module. */
export type LearnerState = ReadonlyMap<
  string,
  { readonly value: HostPair; readonly mean: HostPair; readonly square: HostPair }
>;

/** Decay of Adam's running means. */
const BETAS = [0.9, 0.98] as const;

/** The factors that are learnt, with Adam's state, on a device. */
export class Learner implements Disposable {
  readonly #values: Map<string, Delta>;
  readonly #means: Map<string, Delta>;
  readonly #squares: Map<string, Delta>;

  private constructor(
    readonly device: Device,
    parts: readonly [Map<string, Delta>, Map<string, Delta>, Map<string, Delta>],
  ) {
    [this.#values, this.#means, this.#squares] = parts;
  }

  /** A learner that has not learnt yet. */
  static begin(device: Device, start: ReadonlyMap<string, HostPair>): Learner {
    const zeros = () =>
      mapPairs(start, ({ a, b }) => ({ a: device.zeros(a.shape), b: device.zeros(b.shape) }));
    return new Learner(device, [uploadPairs(device, start), zeros(), zeros()]);
  }

  /** A learner that goes on from a saved state. */
  static restore(device: Device, state: LearnerState): Learner {
    const part = (name: "value" | "mean" | "square") =>
      uploadPairs(device, new Map([...state].map(([module, saved]) => [module, saved[name]])));
    return new Learner(device, [part("value"), part("mean"), part("square")]);
  }

  /** The factors as they are now. They stay the learner's, and change with every step. */
  get deltas(): Deltas {
    return this.#values;
  }

  /** Moves all factors against their gradients; a module without gradients stays. */
  step(gradients: Deltas, step: number, learningRate: number): void {
    const options: AdamStep = { learningRate, betas: BETAS, step };
    for (const [module, gradient] of gradients) {
      const value = this.#values.get(module)!,
        mean = this.#means.get(module)!,
        square = this.#squares.get(module)!;
      adam(value.a, gradient.a, mean.a, square.a, options);
      adam(value.b, gradient.b, mean.b, square.b, options);
    }
  }

  /** A copy of the factors on the device; the caller's to dispose. */
  snapshot(): Deltas {
    return mapPairs(this.#values, ({ a, b }) => ({ a: copy(a), b: copy(b) }));
  }

  async save(): Promise<LearnerState> {
    const state = new Map();
    for (const module of this.#values.keys()) {
      state.set(module, {
        value: await downloadPair(this.#values.get(module)!),
        mean: await downloadPair(this.#means.get(module)!),
        square: await downloadPair(this.#squares.get(module)!),
      });
    }
    return state;
  }

  [Symbol.dispose](): void {
    for (const part of [this.#values, this.#means, this.#squares]) disposeDeltas(part);
  }
}

function mapPairs<From, To>(pairs: ReadonlyMap<string, From>, change: (pair: From) => To): Map<string, To> {
  return new Map([...pairs].map(([module, pair]) => [module, change(pair)]));
}

/** Puts pairs on a device. */
export function uploadPairs(device: Device, pairs: ReadonlyMap<string, HostPair>): Map<string, Delta> {
  const upload = ({ values, shape }: HostTensor): Tensor => device.upload(values, shape);
  return mapPairs(pairs, ({ a, b }) => ({ a: upload(a), b: upload(b) }));
}

/** Reads pairs back. */
export async function downloadPairs(pairs: Deltas): Promise<Map<string, HostPair>> {
  const read = new Map<string, HostPair>();
  for (const [module, delta] of pairs) read.set(module, await downloadPair(delta));
  return read;
}

async function downloadPair({ a, b }: Delta): Promise<HostPair> {
  const download = async (tensor: Tensor): Promise<HostTensor> => ({
    shape: tensor.shape,
    values: await tensor.device.download(tensor) as HostArray,
  });
  return { a: await download(a), b: await download(b) };
}
