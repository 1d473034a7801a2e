import type { Sequence } from "@lora-loom/iteris";
import type { DifferentiableModel, Trace } from "@lora-loom/model";
import { concatRows, type Tensor } from "@lora-loom/tensor";
import { rowCount } from "../calibrated/answer_rows.ts";
import type { Expert } from "../calibrated/session.ts";
import type { HostArray } from "../resume/packed.ts";
import { cuts, type Member } from "./minibatch.ts";
import type { TaskData } from "./task_data.ts";

/** Host memory that the adapters' streams may take; beyond it they are computed for every minibatch anew. */
const HOST_BYTES = 512 * 2 ** 20;

/** What the stream after each layer is under a sequence's own adapter, `[tokens, hidden]` each. */
export interface Teachers {
  /** Streams of a batch by layer, the members one after the other; the caller's to dispose. */
  streams(members: readonly Member[]): Tensor[];
}

/**
 * The adapters' own streams, which the merge is to match. They do not change, so they are computed once where host memory allows it.
 * Which way is taken depends on sizes alone: a resumed refinement sees the same bits.
 */
export async function openTeachers(
  model: DifferentiableModel,
  experts: readonly Expert[],
  tasks: readonly TaskData[],
  tokensPerPass: number,
  onTask: (done: number) => void,
): Promise<Teachers> {
  const rows = tasks.flatMap(({ sequences }) => sequences).reduce(
    (sum, sequence) => sum + model.layerReads.reduce((all, reads) => all + rowCount(sequence, reads), 0),
    0,
  );
  const hiddenSize = model.stages[0]!.sites[0]!.inFeatures;
  if (4 * rows * hiddenSize > HOST_BYTES) return new ComputedTeachers(model, experts);
  const kept: HostArray[][][] = [];
  for (const [task, { sequences }] of tasks.entries()) {
    onTask(task);
    kept.push(
      await streamsOfTask(
        model,
        experts[task]!,
        sequences,
        hiddenSize,
        tokensPerPass,
      ),
    );
  }
  return new KeptTeachers(model, kept, hiddenSize);
}

/** Streams of each sequence by layer, in host memory. */
async function streamsOfTask(
  model: DifferentiableModel,
  expert: Expert,
  sequences: readonly Sequence[],
  hiddenSize: number,
  tokensPerPass: number,
): Promise<HostArray[][]> {
  const result: HostArray[][] = [];
  for (const [first, end] of cuts(sequences.map(({ tokens }) => tokens.length), tokensPerPass)) {
    const batch = sequences.slice(first, end);
    using trace = runExpert(model, expert, batch);
    const layers: HostArray[] = [];
    for (const stream of trace.streams) layers.push(await stream.device.download(stream) as HostArray);
    const starts = layers.map(() => 0);
    for (const sequence of batch) {
      result.push(layers.map((values, layer) => {
        const start = starts[layer]!;
        starts[layer] = start + rowCount(sequence, model.layerReads[layer]) * hiddenSize;
        return values.slice(start, starts[layer]);
      }));
    }
  }
  return result;
}

function runExpert(model: DifferentiableModel, { deltas }: Expert, sequences: readonly Sequence[]): Trace {
  return model.trace(sequences.map(({ tokens }) => tokens), deltas, {
    keepBytes: 0,
    answerStarts: sequences.map(({ answerStart }) => answerStart),
  });
}

class KeptTeachers implements Teachers {
  constructor(
    readonly model: DifferentiableModel,
    /** By task, sequence and layer. */
    readonly kept: readonly (readonly (readonly HostArray[])[])[],
    readonly hiddenSize: number,
  ) {}

  streams(members: readonly Member[]): Tensor[] {
    const { device } = this.model.weight(this.model.stages[0]!.sites[0]!.module);
    return this.model.layerReads.map((_, layer) => {
      const parts = members.map(({ task, index }) => this.kept[task]![index]![layer]!);
      const values = new (parts[0]!.constructor as Float32ArrayConstructor)(
        parts.reduce((sum, { length }) => sum + length, 0),
      );
      let at = 0;
      for (const part of parts) {
        values.set(part, at);
        at += part.length;
      }
      return device.upload(values, [values.length / this.hiddenSize, this.hiddenSize]);
    });
  }
}

class ComputedTeachers implements Teachers {
  constructor(readonly model: DifferentiableModel, readonly experts: readonly Expert[]) {}

  /** Members come task by task, so that each adapter runs once. */
  streams(members: readonly Member[]): Tensor[] {
    using owned = new DisposableStack();
    const runs = this.experts.flatMap((expert, task) => {
      const own = members.filter((member) => member.task === task).map(({ sequence }) => sequence);
      return own.length === 0 ? [] : [owned.use(runExpert(this.model, expert, own))];
    });
    return this.model.layerReads.map((_, layer) => concatRows(runs.map(({ streams }) => streams[layer]!)));
  }
}
