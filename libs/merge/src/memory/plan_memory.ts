import { MergeError } from "../errors.ts";
import type { MemoryChoice } from "../recipe/recipe.ts";
import type { MemoryNeeds } from "./needs.ts";
import { predictNeeds } from "./predict.ts";
import type { Budgets, Workload } from "./workload.ts";

const GIB = 2 ** 30;
const DEFAULT_HOST_STATES = 64 * 2 ** 20;
const DEFAULT_DEVICE_STATES = 2 * GIB;
const DEFAULT_KEY_VALUES = 4 * GIB;
/** Parts of a limit that keys and values may take, the largest that fits: decoding then reads the weights least often. */
const KEY_VALUE_SHARES = [0.6, 0.4, 0.2, 0.1];
/** The most tokens to lead through the model together, and fewer where that does not fit. */
const CHUNKS = [4096, 2048, 1024, 512, 256];
/** Where the device is the host, larger chunks gain nothing. */
const MOST_ON_HOST = 1024;

/** What there is. */
export interface Machine {
  /** Host memory that is free, in bytes. */
  readonly freeHostBytes: number;
  /** Room for temporary files, in bytes. */
  readonly freeScratchBytes: number;
}

/** How a merge is to use memory, and what it then needs. */
export interface MemoryPlan {
  readonly residency: Workload["residency"];
  readonly budgets: Budgets;
  readonly needs: MemoryNeeds;
}

/**
 * Lays out a calibrated merge within what the recipe allows and the machine has: weights resident where they are to be and fit, else
 * streamed; the samples' states on the device as far as there is room; and as many tokens at once as fit.
 *
 * @param work its `residency` is what `auto` would take where nothing limits it
 * @param streamable whether weights can be streamed
 * @throws {MergeError} `not_enough_device_memory`, `not_enough_host_memory`, `not_enough_scratch` with the numbers and a way out
 */
export function planMemory(
  work: Workload,
  choice: MemoryChoice,
  machine: Machine,
  { streamable, where }: { readonly streamable: boolean; readonly where: string },
): MemoryPlan {
  let refusal: MergeError | undefined;
  for (const residency of residencies(work, choice, streamable)) {
    for (const tokensPerChunk of CHUNKS) {
      if (work.device.onHost && tokensPerChunk > MOST_ON_HOST) continue;
      const plan = withBudgets({ ...work, residency }, choice, tokensPerChunk);
      refusal = refusalOf(plan, work, choice, machine, { streamable, where });
      if (!refusal) return plan;
    }
  }
  throw refusal!;
}

/** In the order in which to try them. */
function residencies(
  work: Workload,
  { weights, deviceGib }: MemoryChoice,
  streamable: boolean,
): Workload["residency"][] {
  if (weights !== "auto") return [weights];
  if (!streamable) return ["resident"];
  // A limit that was given says more than the usual threshold.
  return work.residency === "resident" || deviceGib !== undefined ? ["resident", "streamed"] : ["streamed"];
}

function withBudgets(
  work: Workload,
  { deviceGib, hostGib }: MemoryChoice,
  tokensPerChunk: number,
): MemoryPlan {
  const statesElsewhere = (keyValueBytes: number) => ({
    tokensPerChunk,
    deviceBytes: 0,
    hostBytes: 0,
    keyValueBytes,
  });
  const keyValueBytes = deviceGib === undefined
    ? DEFAULT_KEY_VALUES
    : largestThatFits(KEY_VALUE_SHARES.map((share) => share * deviceGib * GIB), (bytes) =>
      predictNeeds(work, statesElsewhere(bytes)).device_bytes <= deviceGib * GIB);
  const least = predictNeeds(work, statesElsewhere(keyValueBytes));
  const left = (limit: number | undefined, needed: number, otherwise: number) =>
    limit === undefined ? otherwise : Math.max(0, Math.floor((limit * GIB - needed) * STATES_SHARE));
  const budgets = {
    tokensPerChunk,
    deviceBytes: work.device.onHost ? 0 : left(deviceGib, least.device_bytes, DEFAULT_DEVICE_STATES),
    hostBytes: left(hostGib, least.host_bytes, DEFAULT_HOST_STATES),
    keyValueBytes,
  };
  return { residency: work.residency, budgets, needs: predictNeeds(work, budgets) };
}

/** The first of some falling sizes that fits; the last where none does. */
function largestThatFits(sizes: readonly number[], fits: (size: number) => boolean): number {
  return sizes.find(fits) ?? sizes.at(-1)!;
}

/** States take a little more than their bytes. */
const STATES_SHARE = 0.9;

function refusalOf(
  { residency, needs, budgets }: MemoryPlan,
  work: Workload,
  { deviceGib, hostGib }: MemoryChoice,
  { freeHostBytes, freeScratchBytes }: Machine,
  { streamable, where }: { readonly streamable: boolean; readonly where: string },
): MergeError | undefined {
  const streamed = streamable && residency === "resident" ? ", set memory.weights to streamed" : "";
  if (deviceGib !== undefined && needs.device_bytes > deviceGib * GIB) {
    return new MergeError(
      "not_enough_device_memory",
      `the merge needs about ${gib(needs.device_bytes)} on the device (${
        partsText(needs)
      }), even ${budgets.tokensPerChunk} tokens ` +
        `at a time; memory.device_gib allows ${deviceGib} GiB`,
      `raise memory.device_gib if the device has more${streamed}, merge fewer adapters at once, or run on device: cpu`,
      where,
    );
  }
  const host = hostGib === undefined ? freeHostBytes : hostGib * GIB;
  if (needs.host_bytes > host) {
    return new MergeError(
      "not_enough_host_memory",
      `the merge needs about ${gib(needs.host_bytes)} of host memory${
        work.device.onHost ? ", in which this device computes" : ""
      }; ` +
        (hostGib === undefined ? `${gib(host)} are free` : `memory.host_gib allows ${hostGib} GiB`),
      hostGib === undefined
        ? `close other programs, or take a machine with more memory${streamed}`
        : `raise memory.host_gib if the machine has more${streamed}, or merge fewer adapters at once`,
      where,
    );
  }
  if (needs.scratch_bytes > freeScratchBytes) {
    return new MergeError(
      "not_enough_scratch",
      `the samples on their way take about ${gib(needs.scratch_bytes)} of temporary files; ${
        gib(freeScratchBytes)
      } are free`,
      "let TMPDIR name a disk with more room, lower parameters.samples, or allow more with memory.device_gib or memory.host_gib",
      where,
    );
  }
  return undefined;
}

/** The largest parts first. */
function partsText({ device_parts }: MemoryNeeds): string {
  return Object.entries(device_parts)
    .sort(([, one], [, other]) => other - one)
    .map(([what, bytes]) => `${what} ${gib(bytes)}`)
    .join(", ");
}

/** Such as `3.4 GiB`. */
export function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(bytes < GIB ? 2 : 1)} GiB`;
}
