import { MergeError, type ProgressEvent } from "@lora-loom/merge";
import type { Connection } from "./connection.ts";
import type { RemoteMerge, RemoteResult, ServerRun } from "./remote_merge.ts";

/** Seconds to wait before an event stream that broke off is asked for again. */
const RETRY_SECONDS = [0.2, 1, 3, 10];

/**
 * Follows a merge to its end; cancels it when the signal fires.
 *
 * @param retrySeconds how long to wait each time that the server does not answer, before it is given up
 * @throws {MergeError} `server_unreachable`, `cancelled`; as the server describes what went wrong
 */
export async function resultOf(
  id: string,
  connection: Connection,
  run: ServerRun,
  retrySeconds: readonly number[] = RETRY_SECONDS,
): Promise<RemoteResult> {
  try {
    const merge = await follow(id, connection, run, retrySeconds);
    if (merge.result) return merge.result;
    if (merge.error) {
      const { code, message, fix, where, blame = "work" } = merge.error;
      throw new MergeError(code, message, fix, where, blame);
    }
    throw cancelled("it was cancelled on the server");
  } catch (error) {
    if (!run.signal.aborted) throw error;
    await connection.send(`/api/merges/${id}`, { method: "DELETE" }).catch(() => {});
    throw cancelled("the merge was cancelled before it was complete");
  }
}

function cancelled(message: string): MergeError {
  return new MergeError("cancelled", message, "run it again; nothing was written", "", "work");
}

/** The server keeps a merge that it took over a stop and a crash, and a merge that is sent again is another one to it. */
function lost(id: string, connection: Connection, error: unknown): MergeError {
  const server = connection.address("");
  const result = connection.address(`/api/merges/${id}/archive.zip`);
  const reason = error instanceof MergeError ? error.message : `${server} broke off: ${error}`;
  return new MergeError(
    "server_unreachable",
    `${reason}; the merge ${id} is not lost: the server keeps it, and goes on with it when it is started again`,
    `start the server again (deno task serve, with the same --data); the result will be on its page and at ${result}. ` +
      "Running this command again starts another merge, after this one",
    server,
    "work",
  );
}

const isOver = ({ state }: RemoteMerge) => state !== "queued" && state !== "running";

/** Reads events until the merge has ended, over as many streams as it takes. */
async function follow(
  id: string,
  connection: Connection,
  run: ServerRun,
  retrySeconds: readonly number[],
): Promise<RemoteMerge> {
  let lastId: string | undefined;
  let failures = 0;
  while (true) {
    try {
      const headers: Record<string, string> = lastId === undefined ? {} : { "last-event-id": lastId };
      const response = await connection.send(`/api/merges/${id}/events`, { headers, signal: run.signal });
      for await (const event of eventsOf(response)) {
        failures = 0;
        lastId = event.id;
        if (event.type === "progress") run.onProgress(JSON.parse(event.data) as ProgressEvent);
        if (event.type !== "merge") continue;
        const merge = JSON.parse(event.data) as RemoteMerge;
        if (isOver(merge)) return merge;
        if (merge.waiting) run.note(`${merge.waiting} merges come before this one`);
      }
    } catch (error) {
      run.signal.throwIfAborted();
      if (error instanceof MergeError && error.code !== "server_unreachable") throw error;
      if (failures >= retrySeconds.length) throw lost(id, connection, error);
    }
    // The stream broke off, or the server was restarted: it goes on where it was.
    await pause(retrySeconds[Math.min(failures++, retrySeconds.length - 1)]!, run.signal);
  }
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", end, { once: true });
  });
}

interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

/** The events of a stream as they come. */
async function* eventsOf(response: Response): AsyncGenerator<ServerEvent> {
  if (!response.body) return;
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop()!;
    for (const block of blocks) {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
      const [id, data] = [field("id"), field("data")];
      if (id !== undefined && data !== undefined) yield { id, type: field("event") ?? "message", data };
    }
  }
}
