import { ServerError } from "../errors.ts";
import type { LoggedEvent } from "../merges/event_log.ts";
import type { MergeResource } from "../merges/merge.ts";
import type { Services } from "./context.ts";

/** Milliseconds between comments that keep proxies from closing a quiet stream, and find out who has gone. */
const HEARTBEAT = 15_000;
/** Events that may wait for a slow reader before the stream is ended; the reader comes back and goes on. */
const MAX_WAITING = 1000;

const isOver = ({ state }: MergeResource) => state !== "queued" && state !== "running";

/** The id of the last event of a merge that has ended: the same whenever it is sent. */
const lastId = ({ id, state }: MergeResource) => `${id}.${state}`;

/** One event on the wire. */
function frame(event: LoggedEvent): string {
  const data = event.type === "merge" ? event.merge : event.progress;
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Server-sent events of merges, to a bounded number of readers. */
export class EventStreams {
  #open = 0;

  /**
   * Starts a stream. A reader that comes back with the id of the last event it saw gets what came after, where that is
   * still known; any other first gets the merge as it is.
   *
   * @throws {ServerError} `not_found`, `too_many_streams`
   */
  open(id: string, request: Request, { merges, limits }: Services): Response {
    const merge = merges.get(id);
    const seen = request.headers.get("last-event-id");
    // A browser asks again when a stream ends; this tells it not to.
    if (isOver(merge) && seen === lastId(merge)) return new Response(null, { status: 204 });
    if (this.#open >= limits.streams) {
      const message = `${limits.streams} event streams are open already`;
      throw new ServerError(
        503,
        "too_many_streams",
        message,
        `ask GET /api/merges/${id} now and then instead`,
      );
    }
    const log = merges.log(id);
    const backlog = (seen === null ? undefined : log.after(seen))?.map(frame);
    const encoder = new TextEncoder();
    let end = () => {};
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#open++;
        const send = (text: string) => controller.enqueue(encoder.encode(text));
        const heartbeat = setInterval(() => send(": still here\n\n"), HEARTBEAT);
        let isEnded = false;
        const stop = log.listen((event) => {
          if ((controller.desiredSize ?? 0) < -MAX_WAITING) return finish();
          if (event.type === "merge" && isOver(event.merge)) {
            send(frame({ ...event, id: lastId(event.merge) }));
            finish();
          } else send(frame(event));
        });
        end = () => {
          if (isEnded) return;
          isEnded = true;
          this.#open--;
          clearInterval(heartbeat);
          stop();
          merges.release(id);
        };
        const finish = () => {
          end();
          controller.close();
        };
        send("retry: 2000\n\n");
        if (isOver(merge)) {
          send(frame({ id: lastId(merge), type: "merge", merge }));
          finish();
        } else if (backlog) backlog.forEach(send);
        else send(frame({ id: log.lastId, type: "merge", merge }));
      },
      cancel: () => end(),
    });
    return new Response(body, {
      headers: { "content-type": "text/event-stream", "x-accel-buffering": "no" },
    });
  }
}
