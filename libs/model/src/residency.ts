import { freemem } from "node:os";
import type { ModelWeights } from "@lora-loom/formats";
import { type Device, elementCount } from "@lora-loom/tensor";

/**
 * Where a model's weights are between uses: `resident` on the device, or `streamed` from the model's files, so that only those of
 * the stage that runs are there.
 */
export type Residency = "resident" | "streamed";

/** What to do; `auto` keeps models resident that take a modest part of the device's memory. */
export type ResidencyChoice = Residency | "auto";

/** Widened weights of more bytes are streamed by `auto`: WebGPU does not tell how much memory a GPU has, and this much most have. */
const MOST_RESIDENT_ON_GPU = 6 * 2 ** 30;
/** The same of free host memory, where the device computes in it. */
const MOST_RESIDENT_SHARE = 0.25;

/** A hold of what is there anyway. */
export const NO_HOLD: Disposable = { [Symbol.dispose]() {} };

/** Bytes that one parameter takes on a device, where weights are widened to its type. */
export function bytesPerParameter({ info }: Device): number {
  return info.backend === "cpu" ? 8 : 4;
}

/** Whether a device computes in the host's memory. */
export function computesOnHost({ info }: Device): boolean {
  return info.class === "cpu" || info.class === "software";
}

/** Parameters of a stored model. */
export function parameterCount({ tensors }: ModelWeights): number {
  return [...tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

/** Resolves `auto` for a model of so many parameters. */
export function chooseResidency(choice: ResidencyChoice, device: Device, parameters: number): Residency {
  if (choice !== "auto") return choice;
  const most = computesOnHost(device) ? MOST_RESIDENT_SHARE * freemem() : MOST_RESIDENT_ON_GPU;
  return parameters * bytesPerParameter(device) <= most ? "resident" : "streamed";
}
