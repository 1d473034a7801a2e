/** The thread that owns the device and merges on it, one recipe at a time. */
/// <reference lib="deno.worker" />
import { describeError, type DeviceChoice, runMerge } from "@lora-loom/merge";
import { type Device, openDevice } from "@lora-loom/tensor";
import type { MergeNews, MergeOrder } from "./messages.ts";
import { standBack } from "./priority.ts";

standBack();

/** What an `auto` in a recipe means; comes with the thread's name. */
const DEFAULT_DEVICE = self.name as DeviceChoice;

const tell = (news: MergeNews) => self.postMessage(news);

/** The device in use; opened again when a recipe asks for another one. */
let open: { readonly choice: DeviceChoice; readonly device: Device } | undefined;
const running = new Map<string, AbortController>();

async function deviceFor(asked: DeviceChoice): Promise<Device> {
  const choice = asked === "auto" ? DEFAULT_DEVICE : asked;
  if (open?.choice === choice) return open.device;
  await open?.device.dispose();
  open = undefined;
  const device = await openDevice({ device: choice });
  open = { choice, device };
  const { name, backend, class: kind } = device.info;
  tell({ type: "device", device: { name, backend, class: kind } });
  return device;
}

async function run({ id, recipe }: MergeOrder & { type: "run" }): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const device = await deviceFor(recipe.device);
    const { peak_rss_bytes, peak_gpu_bytes } = await runMerge(recipe, {
      device,
      signal: controller.signal,
      onProgress: (event) => tell({ type: "progress", id, event }),
    });
    tell({ type: "done", id, peaks: { peak_rss_bytes, peak_gpu_bytes } });
  } catch (error) {
    tell({ type: "failed", id, error: describeError(error) });
  } finally {
    running.delete(id);
  }
}

self.addEventListener("message", async ({ data }: MessageEvent<MergeOrder>) => {
  if (data.type === "cancel") running.get(data.id)?.abort();
  else if (data.type === "run") await run(data);
  else {
    try {
      await deviceFor("auto");
    } catch (error) {
      tell({ type: "no_device", error: describeError(error) });
    }
  }
});
