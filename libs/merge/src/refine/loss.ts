import {
  type Deltas,
  type DifferentiableModel,
  divergence,
  type FactorGradients,
  gatherRows,
  scatterRows,
} from "@lora-loom/model";
import { add, concatRows, reshape, scaleRows, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import type { PackedBatch } from "./minibatch.ts";
import type { RefineSettings } from "./parameters.ts";

/** The two parts of the loss. */
export interface Loss {
  /** Σ_l Σ_t w_t ‖h̃_lt − h_lt‖² / ν_l */
  readonly states: number;
  /** The weighted divergence of the answers' distributions. */
  readonly divergence: number;
}

/** Numbers on the device that add up to a loss, `[n, 1]` each; whoever reads them disposes them. */
export interface PendingLoss {
  readonly states: Tensor;
  readonly divergence: Tensor | undefined;
}

/**
 * Runs one batch forth and back: adds its gradients at the factors of `deltas` to `gradients`, and gives its part of the loss
 *
 *     Σ_l Σ_t w_t ‖h̃_lt − h_lt‖² / ν_l + κ · Σ_t s_t KL(adapter ‖ merge; temperature)
 *
 * with h the stream after layer l under the sequence's own adapter, h̃ under the merge, s_t the answers' shares.
 *
 * @param teachers h by layer
 * @param sizes ν_l by layer
 */
export function lossOfBatch(
  model: DifferentiableModel,
  batch: PackedBatch,
  teachers: readonly Tensor[],
  sizes: readonly number[],
  deltas: Deltas,
  settings: Pick<RefineSettings, "divergence" | "temperature">,
  gradients: FactorGradients,
): PendingLoss {
  using owned = new DisposableStack();
  const sequences = batch.members.map(({ sequence }) => sequence);
  const trace = owned.use(
    model.trace(sequences.map(({ tokens }) => tokens), deltas, {
      answerStarts: sequences.map(({ answerStart }) => answerStart),
    }),
  );
  const parts: Tensor[] = [];
  const streams = trace.streams.map((stream, layer) => {
    const matched = owned.use(
      matchRows(stream, teachers[layer]!, batch.weights.get(model.layerReads[layer])!, sizes[layer]!),
    );
    parts.push(owned.use(matched.loss));
    return matched.gradient;
  });
  const compared = settings.divergence > 0 && batch.answerRows.length > 0
    ? compareAnswers(model, batch, trace.output, teachers.at(-1)!, settings)
    : undefined;
  if (compared) owned.use(compared.gradient);
  trace.backward({ streams, ...(compared ? { output: compared.gradient } : {}) }, gradients.observe);
  return { states: column(parts), divergence: compared?.losses };
}

/** Reads pending losses back, all together. */
export async function readLoss(pending: readonly PendingLoss[]): Promise<Loss> {
  const tensors = pending.flatMap(({ states, divergence }) => divergence ? [states, divergence] : [states]);
  using all = concatRows(tensors);
  const values = await all.device.download(all);
  tensors.forEach((tensor) => tensor.dispose());
  const loss = { states: 0, divergence: 0 };
  let at = 0;
  for (const { states, divergence } of pending) {
    for (let i = 0; i < states.shape[0]!; i++) loss.states += values[at++]!;
    for (let i = 0; i < (divergence?.shape[0] ?? 0); i++) loss.divergence += values[at++]!;
  }
  return loss;
}

interface Matched extends Disposable {
  /** `[1]` */
  readonly loss: Tensor;
  readonly gradient: Tensor;
}

/** Σ_t w_t ‖h̃_t − h_t‖² / ν and its gradient at h̃. */
function matchRows(stream: Tensor, teacher: Tensor, weights: Float64Array, size: number): Matched {
  const { device } = stream;
  const upload = (factor: number) =>
    device.upload(Float64Array.from(weights, (weight) => factor * Math.sqrt(weight / size)), [
      weights.length,
    ]);
  const difference = add(stream, teacher, { beta: -1 });
  using roots = upload(1);
  scaleRows(difference, roots, { into: difference });
  const loss = sumOfSquares(difference);
  using twice = upload(2);
  const gradient = scaleRows(difference, twice, { into: difference });
  return { loss, gradient, [Symbol.dispose]: () => gradient.dispose() };
}

/** The divergence at the answers, by row, and its gradient at all outputs of the final norm. */
function compareAnswers(
  model: DifferentiableModel,
  { answerRows, answerShares }: PackedBatch,
  output: Tensor,
  lastTeacher: Tensor,
  { divergence: weight, temperature }: Pick<RefineSettings, "divergence" | "temperature">,
): { readonly losses: Tensor; readonly gradient: Tensor } {
  const { device } = output;
  const count = answerRows.length;
  using rows = device.upload(answerRows, [count], "u32");
  using own = gatherRows(output, rows);
  using logits = model.readOut(own);
  using teacherStream = gatherRows(lastTeacher, rows);
  using teacherOutput = model.normalise(teacherStream);
  using targets = model.readOut(teacherOutput);
  using factors = device.upload(answerShares.map((share) => weight * share), [count]);
  const compared = divergence(logits, targets, factors, temperature);
  using losses = compared.losses;
  using atLogits = compared.gradient;
  using atRows = model.readOutBackward(atLogits, logits);
  const gradient = device.zeros(output.shape);
  scatterRows(atRows, rows, gradient);
  return { losses: reshape(losses, [count, 1]), gradient };
}

/** `[1]` each → `[n, 1]` */
function column(scalars: readonly Tensor[]): Tensor {
  using owned = new DisposableStack();
  return concatRows(scalars.map((scalar) => owned.use(reshape(scalar, [1, 1]))));
}
