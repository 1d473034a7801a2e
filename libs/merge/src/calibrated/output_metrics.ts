import type { OutputMetrics, Sequence } from "@lora-loom/iteris";
import {
  type Deltas,
  type DifferentiableModel,
  drawnScores,
  gatherRows,
  scatterRows,
  type Trace,
} from "@lora-loom/model";
import { type Device, gram, sliceColumns, type Tensor } from "@lora-loom/tensor";
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

interface HostBlock {
  readonly size: number;
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
  const measured: Map<string, HostBlock[]>[] = [];
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
    readonly tasks: readonly ReadonlyMap<string, readonly HostBlock[]>[],
  ) {}

  blocks(task: number, module: string, outputs = 0): Promise<readonly Tensor[]> {
    const blocks = this.tasks[task]!.get(module);
    // A task without answers says nothing about what matters.
    if (!blocks) {
      return Promise.resolve(
        blockRanges(outputs).map(([first, end]) => this.device.zeros([end - first, end - first])),
      );
    }
    return Promise.resolve(blocks.map(({ size, values }) => this.device.upload(values, [size, size])));
  }

  /** The mean of these metrics and others of the same tasks. */
  averagedWith(other: HostMetrics): HostMetrics {
    return new HostMetrics(
      this.device,
      this.tasks.map((modules, task) =>
        new Map([...modules].map(([module, blocks]) => {
          const others = other.tasks[task]!.get(module) ?? blocks;
          return [
            module,
            blocks.map(({ size, values }, i) => ({ size, values: meanOf(values, others[i]!.values) })),
          ];
        }))
      ),
    );
  }
}

function meanOf(x: HostBlock["values"], y: HostBlock["values"]): HostBlock["values"] {
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
  readonly #sums = new Map<string, Tensor[]>();

  /** @param gradient `[tokens, out]` */
  add(module: string, gradient: Tensor): void {
    const known = this.#sums.get(module);
    const outputs = gradient.shape[1]!;
    const ranges = blockRanges(outputs);
    const sums = ranges.map(([first, end], i) => {
      const into = known ? { into: known[i]!, beta: 1 } : {};
      if (ranges.length === 1) return gram(gradient, { of: "columns", ...into });
      using columns = sliceColumns(gradient, first, end);
      return gram(columns, { of: "columns", ...into });
    });
    this.#sums.set(module, sums);
  }

  /** The sums at unit trace; zeros where no gradient arrived. */
  async download(): Promise<Map<string, HostBlock[]>> {
    const result = new Map<string, HostBlock[]>();
    for (const [module, blocks] of this.#sums) {
      const host: HostBlock[] = [];
      for (const block of blocks) {
        host.push({
          size: block.shape[0]!,
          values: await block.device.download(block) as HostBlock["values"],
        });
      }
      const trace = host.reduce((sum, block) => sum + traceOf(block), 0);
      if (trace > 0) {
        for (const { values } of host) values.forEach((value, i) => values[i] = value / trace);
      }
      result.set(module, host);
    }
    return result;
  }

  [Symbol.dispose](): void {
    for (const block of [...this.#sums.values()].flat()) block.dispose();
  }
}

function traceOf({ size, values }: HostBlock): number {
  let trace = 0;
  for (let i = 0; i < size; i++) trace += values[i * size + i]!;
  return trace;
}

/** Ranges of outputs that a metric relates to one another. */
export function blockRanges(outputs: number): [first: number, end: number][] {
  const size = outputs <= LARGEST_FULL ? outputs : BLOCK;
  return Array.from(
    { length: Math.ceil(outputs / size) },
    (_, i) => [i * size, Math.min((i + 1) * size, outputs)],
  );
}
