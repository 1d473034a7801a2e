import type { OutputMetrics, Sequence } from "@lora-loom/iteris";
import {
  type Deltas,
  type DifferentiableModel,
  drawnScores,
  gatherRows,
  scatterRows,
  type Trace,
} from "@lora-loom/model";
import { type Device, gram, gramBlocks, type Tensor } from "@lora-loom/tensor";
import { throwIfCancelled } from "../errors.ts";
import { cuts } from "../refine/minibatch.ts";
import { answerRows } from "./answer_rows.ts";
import { seededRandom } from "./seeded_random.ts";

/** How metrics are measured. */
export interface MetricOptions {
  /** Answers drawn for every position. */
  readonly draws: number;
  /** Softens the distribution that they are drawn from: certain answers have no gradient. */
  readonly temperature: number;
  readonly seed: number;
  readonly signal: AbortSignal | undefined;
  readonly progress: (task: number) => void;
}

/** A task with the deltas under which its metric is measured. */
export interface MetricTask {
  readonly sequences: readonly Sequence[];
  readonly deltas: Deltas;
}

/** Outputs up to which a metric is a full matrix; beyond, it is block-diagonal with blocks of this size. */
const LARGEST_FULL = 1024;
const BLOCK = 256;
const TOKENS_PER_PASS = 2048;

/** Blocks along a matrix's diagonal, one below the other, as `OutputMetrics` has them. */
interface HostBlocks {
  readonly size: number;
  /** `[out, size]` */
  readonly values: Float64Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

/**
 * F_i = Σ_t g_t g_tᵀ at every module, scaled to trace 1: at each position that predicts a token of an answer, y is drawn from
 * p = softmax(z / temperature) of the model's own logits z, and E_y − Σ_v p_v E_v is led back from the output of the final norm. The
 * results wait in host memory.
 *
 * Modules with more than 1024 outputs get blocks of 256 along the diagonal: neighbouring outputs, which are the heads of attention.
 */
export async function measureOutputMetrics(
  device: Device,
  model: DifferentiableModel,
  tasks: readonly MetricTask[],
  options: MetricOptions,
): Promise<HostMetrics> {
  const measured: Map<string, HostBlocks>[] = [];
  for (const [index, task] of tasks.entries()) {
    options.progress(index);
    using sums = new BlockSums();
    const random = seededRandom(options.seed + 15485863 * index);
    for (const [first, end] of cuts(task.sequences.map(({ tokens }) => tokens.length), TOKENS_PER_PASS)) {
      throwIfCancelled(options.signal);
      addBatch(device, model, task.sequences.slice(first, end), task.deltas, options, random, sums);
    }
    measured.push(await sums.download());
  }
  return new HostMetrics(device, measured);
}

/** Metrics in host memory, at unit trace. */
export class HostMetrics implements OutputMetrics {
  constructor(
    readonly device: Device,
    readonly tasks: readonly ReadonlyMap<string, HostBlocks>[],
  ) {}

  blocks(task: number, module: string, outputs = 0): Promise<Tensor> {
    const blocks = this.tasks[task]!.get(module);
    // A task without answers says nothing about what matters.
    if (!blocks) return Promise.resolve(this.device.zeros([outputs, blockSize(outputs)]));
    const { size, values } = blocks;
    return Promise.resolve(this.device.upload(values, [values.length / size, size]));
  }

  /** The mean of these metrics and others of the same tasks. */
  averagedWith(other: HostMetrics): HostMetrics {
    return new HostMetrics(
      this.device,
      this.tasks.map((modules, task) =>
        new Map([...modules].map(([module, blocks]) => {
          const others = other.tasks[task]!.get(module) ?? blocks;
          return [module, { size: blocks.size, values: meanOf(blocks.values, others.values) }];
        }))
      ),
    );
  }
}

/** Does work when it is first asked for, and then gives the same every time. */
export function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => result ??= work();
}

/** Metrics that are measured when a module is solved with them: a sweep whose modules are all in the journal needs none. */
export class MetricsOnDemand implements OutputMetrics {
  constructor(private readonly measured: () => Promise<OutputMetrics>) {}

  async blocks(task: number, module: string, outputs: number): Promise<Tensor> {
    return await (await this.measured()).blocks(task, module, outputs);
  }
}

function meanOf(x: HostBlocks["values"], y: HostBlocks["values"]): HostBlocks["values"] {
  const mean = x.slice();
  y.forEach((value, i) => mean[i] = (mean[i]! + value) / 2);
  return mean;
}

function addBatch(
  device: Device,
  model: DifferentiableModel,
  sequences: readonly Sequence[],
  deltas: Deltas,
  { draws, temperature }: MetricOptions,
  random: () => number,
  sums: BlockSums,
): void {
  const predicting = answerRows(sequences, model.layerReads.at(-1));
  if (predicting.length === 0) return;
  using trace = model.trace(sequences.map(({ tokens }) => tokens), deltas, {
    answerStarts: sequences.map(({ answerStart }) => answerStart),
  });
  using rows = device.upload(predicting, [predicting.length], "u32");
  using outputs = gatherRows(trace.output, rows);
  using logits = model.readOut(outputs);
  for (let draw = 0; draw < draws; draw++) {
    const numbers = Float64Array.from(predicting, random);
    using output = scoreGradient(model, trace, logits, rows, numbers, temperature);
    trace.backward({ output }, ({ module }, _input, gradient) => sums.add(module, gradient));
  }
}

/** The gradient of one draw's log-likelihood at all outputs of the final norm. */
function scoreGradient(
  model: DifferentiableModel,
  { output }: Trace,
  logits: Tensor,
  rows: Tensor,
  numbers: Float64Array<ArrayBuffer>,
  temperature: number,
): Tensor {
  const { device } = output;
  using draws = device.upload(numbers, [numbers.length]);
  using scores = drawnScores(logits, draws, temperature);
  using atRows = model.readOutBackward(scores, logits);
  const gradient = device.zeros(output.shape);
  scatterRows(atRows, rows, gradient);
  return gradient;
}

/** Σ g gᵀ of each module by blocks, on the device. */
class BlockSums implements Disposable {
  readonly #sums = new Map<string, Tensor>();

  /** @param gradient `[tokens, out]` */
  add(module: string, gradient: Tensor): void {
    const known = this.#sums.get(module);
    const outputs = gradient.shape[1]!;
    const size = blockSize(outputs);
    const into = known ? { into: known } : {};
    this.#sums.set(
      module,
      size === outputs
        ? gram(gradient, { of: "columns", beta: 1, ...into })
        : gramBlocks(gradient, { size, ...into }),
    );
  }

  /** The sums at unit trace; zeros where no gradient arrived. */
  async download(): Promise<Map<string, HostBlocks>> {
    const result = new Map<string, HostBlocks>();
    for (const [module, sums] of this.#sums) {
      const blocks = {
        size: sums.shape[1]!,
        values: await sums.device.download(sums) as HostBlocks["values"],
      };
      const trace = traceOf(blocks);
      if (trace > 0) blocks.values.forEach((value, i) => blocks.values[i] = value / trace);
      result.set(module, blocks);
    }
    return result;
  }

  [Symbol.dispose](): void {
    for (const sums of this.#sums.values()) sums.dispose();
  }
}

function traceOf({ size, values }: HostBlocks): number {
  let trace = 0;
  for (let row = 0; row < values.length / size; row++) trace += values[row * size + row % size]!;
  return trace;
}

/** Neighbouring outputs that a metric relates to one another. */
export function blockSize(outputs: number): number {
  return outputs <= LARGEST_FULL ? outputs : BLOCK;
}
