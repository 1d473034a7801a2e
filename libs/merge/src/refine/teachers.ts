import type { DifferentiableModel } from "@lora-loom/model";
import { concatRows, type Tensor } from "@lora-loom/tensor";
import type { Expert } from "../calibrated/session.ts";
import { cuts, type Member } from "./minibatch.ts";
import type { TaskData } from "./task_data.ts";

/** Host memory that the adapters' streams may take; beyond it they are computed for every minibatch anew. */
const HOST_BYTES = 512 * 2 ** 20;

type HostArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

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
  const tokens = tasks.flatMap(({ sequences }) => sequences).reduce(
    (sum, { tokens }) => sum + tokens.length,
    0,
  );
  const hiddenSize = model.stages[0]!.sites[0]!.inFeatures;
  if (4 * tokens * hiddenSize * model.layerCount > HOST_BYTES) return new ComputedTeachers(model, experts);
  const kept: HostArray[][][] = [];
  for (const [task, { sequences }] of tasks.entries()) {
    onTask(task);
    kept.push(
      await streamsOfTask(
        model,
        experts[task]!,
        sequences.map(({ tokens }) => tokens),
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
  sequences: readonly Uint32Array[],
  hiddenSize: number,
  tokensPerPass: number,
): Promise<HostArray[][]> {
  const result: HostArray[][] = [];
  for (const [first, end] of cuts(sequences.map(({ length }) => length), tokensPerPass)) {
    const batch = sequences.slice(first, end);
    using trace = model.trace(batch, expert.deltas, { keepBytes: 0 });
    const layers: HostArray[] = [];
    for (const stream of trace.streams) layers.push(await stream.device.download(stream) as HostArray);
    let row = 0;
    for (const { length } of batch) {
      const range = [row * hiddenSize, (row += length) * hiddenSize] as const;
      result.push(layers.map((values) => values.slice(...range)));
    }
  }
  return result;
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
    return Array.from({ length: this.model.layerCount }, (_, layer) => {
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
      const own = members.filter((member) => member.task === task).map(({ sequence }) => sequence.tokens);
      return own.length === 0 ? [] : [owned.use(this.model.trace(own, expert.deltas, { keepBytes: 0 }))];
    });
    return Array.from(
      { length: this.model.layerCount },
      (_, layer) => concatRows(runs.map(({ streams }) => streams[layer]!)),
    );
  }
}
