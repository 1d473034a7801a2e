/**
 * A merging thread that loses its GPU in the middle of a merge, as long as the file that `LOOM_TEST_LOSE_DEVICE` names
 * is there; it removes the file, so that the next thread keeps its device.
 */
/// <reference lib="deno.worker" />
import type { MergeOrder } from "../work/messages.ts";

/** How much work is recorded before the device is gone. */
const RECORDINGS = 20;

self.addEventListener("message", async ({ data }: MessageEvent<MergeOrder>) => {
  if (data.type !== "run" || !await takeMark()) return;
  const { globals } = await import("webgpu");
  const { prototype } = (globals as unknown as { GPUDevice: { prototype: GPUDevice } }).GPUDevice;
  const record = prototype.createCommandEncoder;
  let left = RECORDINGS;
  prototype.createCommandEncoder = function (this: GPUDevice, ...args) {
    if (left-- === 0) queueMicrotask(() => this.destroy());
    return record.apply(this, args);
  };
});

async function takeMark(): Promise<boolean> {
  try {
    await Deno.remove(Deno.env.get("LOOM_TEST_LOSE_DEVICE")!);
    return true;
  } catch {
    return false;
  }
}

import "../work/merge_worker.ts";
