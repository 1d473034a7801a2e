/** The thread that looks at adapters. */
/// <reference lib="deno.worker" />
import { INSPECTION, type InspectionWork, portable } from "./inspection.ts";
import type { CallMessage, ReplyMessage } from "./messages.ts";
import { standBack } from "./priority.ts";

standBack();

self.addEventListener("message", async ({ data }: MessageEvent<CallMessage>) => {
  const work = INSPECTION[data.call as keyof InspectionWork] as (argument: unknown) => Promise<unknown>;
  let reply: ReplyMessage;
  try {
    reply = { id: data.id, value: await work(data.argument) };
  } catch (error) {
    reply = { id: data.id, error: portable(error) };
  }
  self.postMessage(reply);
});
