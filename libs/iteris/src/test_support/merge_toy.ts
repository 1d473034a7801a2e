import { assertEquals } from "@std/assert";
import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { assertRelativelyClose } from "@lora-loom/testing";
import type { Delta } from "../base_model.ts";
import { iteris } from "../iteris.ts";
import { iterisPlus } from "../iteris_plus.ts";
import type { IterisOptions, IterisPlusOptions } from "../options.ts";
import type { Journal } from "../journal.ts";
import type { OutputMetrics } from "../output_metrics.ts";
import type { MemoryLimits, MergeRequest, Progress } from "../request.ts";
import type { Merged } from "../run.ts";
import { fromFlat, type Matrix, times } from "./oracle.ts";
import { type HostTask, ToyModel, type ToyWeights, uploadTask } from "./toy_model.ts";

/** Which method, with its options. */
export type Method = { readonly iteris: IterisOptions } | { readonly plus: IterisPlusOptions };

/** What a test may change of a merge. */
export interface ToyMergeOptions {
  readonly device?: Device;
  readonly memory?: MemoryLimits;
  readonly progress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  readonly metrics?: OutputMetrics;
  readonly journal?: Journal;
}

/** Merges host tasks of a toy model, in small chunks. */
export async function mergeToy(
  toy: ToyWeights,
  tasks: readonly HostTask[],
  method: Method,
  { device = new CpuDevice(), memory, ...rest }: ToyMergeOptions = {},
): Promise<Merged> {
  const request: MergeRequest<never> = {
    device,
    model: new ToyModel(device, toy),
    tasks: tasks.map((task) => uploadTask(device, toy, task)),
    memory: { tokensPerChunk: 20, ...memory },
    ...rest,
  };
  return "iteris" in method
    ? await iteris({ ...request, options: method.iteris })
    : await iterisPlus({ ...request, options: method.plus });
}

/** A matrix on the host. */
export async function matrixOf(tensor: Tensor): Promise<Matrix> {
  return fromFlat(await tensor.device.download(tensor), tensor.shape[0]!, tensor.shape[1]!);
}

/** b·a on the host. */
export async function denseOf({ a, b }: Delta): Promise<Matrix> {
  return times(await matrixOf(b), await matrixOf(a));
}

/** All merged deltas on the host. */
export async function denseResult({ deltas }: Merged): Promise<Map<string, Matrix>> {
  const result = new Map<string, Matrix>();
  for (const [module, delta] of deltas) result.set(module, await denseOf(delta));
  return result;
}

/** Asserts that every merged delta is the expected dense one, and that no other module is there. */
export async function assertDeltas(
  merged: Merged,
  expected: ReadonlyMap<string, Matrix>,
  tolerance = 1e-9,
): Promise<void> {
  assertEquals([...merged.deltas.keys()].sort(), [...expected.keys()].sort());
  for (const [module, matrix] of expected) {
    assertRelativelyClose(
      (await denseOf(merged.deltas.get(module)!)).flat(),
      matrix.flat(),
      tolerance,
      module,
    );
  }
}
