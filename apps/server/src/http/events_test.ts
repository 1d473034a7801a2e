import { assertEquals } from "@std/assert";
import type { MergeProgress, MergeResource } from "../merges/merge.ts";
import { ManualMerger } from "../test_support/mergers.ts";
import { errorOf, type TestServer, withServer } from "../test_support/server.ts";

interface ServerEvent {
  readonly id: string;
  readonly event: string;
  readonly data: MergeResource | MergeProgress;
}

/** Reads server-sent events as a browser does. */
class EventReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  #text = "";

  constructor(response: Response) {
    this.#reader = response.body!.getReader();
  }

  /** The next event; undefined when the stream has ended. */
  async next(): Promise<ServerEvent | undefined> {
    while (true) {
      const end = this.#text.indexOf("\n\n");
      if (end >= 0) {
        const block = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
        const data = field("data");
        if (data) return { id: field("id")!, event: field("event")!, data: JSON.parse(data) };
        continue;
      }
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#text += this.#decoder.decode(value, { stream: true });
    }
  }

  close(): Promise<void> {
    return this.#reader.cancel();
  }
}

const moduleEvent = (done: number): MergeProgress => ({
  type: "module",
  name: `layer.${done}`,
  done,
  total: 4,
  seconds: 0.1,
  elapsed: 0.1 * done,
  remaining: 0.1 * (4 - done),
});

async function withMerge(
  body: (server: TestServer, merger: ManualMerger, id: string) => Promise<void>,
): Promise<void> {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger], limits: { streams: 2 } }, async (server) => {
    const { id } = await server.upload("language");
    const merge = await server.startMerge({ method: "linear", adapters: [{ id }] });
    await merger.current(1);
    await body(server, merger, merge.id);
  });
}

async function watch(server: TestServer, id: string, lastId?: string): Promise<EventReader> {
  const headers = lastId === undefined ? {} : { "last-event-id": lastId };
  const response = await server.fetch(`/api/merges/${id}/events`, { headers });
  assertEquals(response.headers.get("content-type"), "text/event-stream");
  return new EventReader(response);
}

Deno.test("events begin with the merge as it is, tell every step in order, and end with the merge", () =>
  withMerge(async (server, merger, id) => {
    const reader = await watch(server, id);
    const first = await reader.next();
    assertEquals([first?.event, (first?.data as MergeResource).state], ["merge", "running"]);
    const task = await merger.current(1);
    for (const done of [1, 2, 3]) task.onProgress(moduleEvent(done));
    for (const done of [1, 2, 3]) assertEquals((await reader.next())?.data, moduleEvent(done));
    assertEquals(server.services.merges.get(id).progress, moduleEvent(3));
    await merger.complete();
    const last = await reader.next();
    assertEquals([last?.event, (last?.data as MergeResource).state], ["merge", "done"]);
    assertEquals(await reader.next(), undefined);
    // A browser comes back when a stream ends, and must be told that there is no more.
    const again = await server.fetch(`/api/merges/${id}/events`, { headers: { "last-event-id": last!.id } });
    assertEquals(again.status, 204);
  }));

Deno.test("a reader that comes back gets what it missed, and nothing twice", () =>
  withMerge(async (server, merger, id) => {
    const reader = await watch(server, id);
    await reader.next();
    const task = await merger.current(1);
    task.onProgress(moduleEvent(1));
    const seen = await reader.next();
    await reader.close();
    // Somebody else still watches, so that events are kept.
    for (const done of [2, 3]) task.onProgress(moduleEvent(done));
    const back = await watch(server, id, seen!.id);
    for (const done of [2, 3]) assertEquals((await back.next())?.data, moduleEvent(done));
    await back.close();
  }));

Deno.test("a reader with an id of another life of the server gets the merge as it is", () =>
  withMerge(async (server, _merger, id) => {
    for (const lastId of ["0badcafe.7", "nonsense", ""]) {
      const reader = await watch(server, id, lastId);
      assertEquals((await reader.next())?.event, "merge");
      await reader.close();
    }
  }));

Deno.test("events of a merge that has ended give its end at once", () =>
  withMerge(async (server, merger, id) => {
    merger.fail("not_finite");
    await server.until(id, "failed");
    const reader = await watch(server, id);
    const event = await reader.next();
    assertEquals((event?.data as MergeResource).error?.code, "not_finite");
    assertEquals(await reader.next(), undefined);
  }));

Deno.test("those that wait are told when they move up", () =>
  withMerge(async (server, merger, id) => {
    const { request } = server.services.merges.get(id);
    const [second, third] = [await server.startMerge(request), await server.startMerge(request)];
    const reader = await watch(server, third.id);
    assertEquals((await reader.next())?.data, server.services.merges.get(third.id));
    await merger.complete();
    await server.until(id, "done");
    let waiting: number | null = 2;
    while (waiting !== 1) waiting = ((await reader.next())?.data as MergeResource).waiting;
    assertEquals(second.waiting, 1);
    await reader.close();
  }));

Deno.test("more streams than may be open are refused, and closed ones make room", () =>
  withMerge(async (server, _merger, id) => {
    const readers = [await watch(server, id), await watch(server, id)];
    const refused = await server.fetch(`/api/merges/${id}/events`);
    assertEquals((await errorOf(refused, 503)).code, "too_many_streams");
    await readers[0]!.close();
    await (await watch(server, id)).close();
    await readers[1]!.close();
  }));
