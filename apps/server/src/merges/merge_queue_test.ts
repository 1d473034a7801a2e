import { assertEquals } from "@std/assert";
import { ManualMerger, writeResult } from "../test_support/mergers.ts";
import { errorOf, onData, type TestServer, withFolder, withServer } from "../test_support/server.ts";

async function start(server: TestServer, adapter: string): Promise<string> {
  return (await server.startMerge({ method: "linear", adapters: [{ id: adapter }] })).id;
}

const stateOf = (server: TestServer, id: string) => server.services.merges.get(id).state;

Deno.test("MergeQueue runs merges one by one, in the order in which they came", async () => {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger] }, async (server) => {
    const { id } = await server.upload("language");
    const ids = [await start(server, id), await start(server, id), await start(server, id)];
    assertEquals(ids.map((one) => server.services.merges.get(one).waiting), [null, 1, 2]);
    for (const [index, one] of ids.entries()) {
      assertEquals((await merger.current(index + 1)).id, one);
      assertEquals(server.services.merges.counts, { running: 1, queued: 2 - index });
      await merger.complete();
      await server.until(one, "done");
    }
  });
});

Deno.test("MergeQueue runs as many merges at a time as it has mergers", async () => {
  const mergers = [new ManualMerger(), new ManualMerger()];
  await withServer({ mergers }, async (server) => {
    const { id } = await server.upload("language");
    const ids = [await start(server, id), await start(server, id), await start(server, id)];
    await mergers[1]!.current(1);
    assertEquals(ids.map((one) => stateOf(server, one)), ["running", "running", "queued"]);
    await mergers[1]!.complete();
    assertEquals((await mergers[1]!.current(2)).id, ids[2]);
  });
});

Deno.test("MergeQueue cancels what waits at once and what runs when it has stopped", async () => {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger] }, async (server) => {
    const { id } = await server.upload("language");
    const [running, waiting] = [await start(server, id), await start(server, id)];
    await merger.current(1);
    const cancel = (one: string) => server.fetch(`/api/merges/${one}`, { method: "DELETE" });
    assertEquals((await (await cancel(waiting)).json()).state, "cancelled");
    assertEquals((await cancel(running)).status, 202);
    await server.until(running, "cancelled");
    assertEquals(merger.started.length, 1, "the cancelled one never started");
  });
});

Deno.test("MergeQueue tries once more when the device was lost, and only once", async () => {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger] }, async (server) => {
    const { id } = await server.upload("language");
    const first = await start(server, id);
    await merger.current(1);
    merger.fail("device_lost");
    assertEquals((await merger.current(2)).id, first);
    assertEquals(merger.restarts, 1);
    await merger.complete();
    await server.until(first, "done");

    const second = await start(server, id);
    await merger.current(3);
    merger.fail("device_lost");
    await merger.current(4);
    merger.fail("device_lost");
    assertEquals((await server.until(second, "failed")).error?.code, "device_lost");

    const third = await start(server, id);
    await merger.current(5);
    merger.fail("not_finite");
    assertEquals((await server.until(third, "failed")).error?.code, "not_finite");
    assertEquals(merger.restarts, 2);
  });
});

Deno.test("MergeQueue refuses more merges than may wait or be kept", async () => {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger], limits: { queue: 1, merges: 3 } }, async (server) => {
    const { id } = await server.upload("language");
    const request = { method: "linear", adapters: [{ id }] };
    const first = await start(server, id);
    const second = await start(server, id);
    const response = await server.post("/api/merges", request);
    assertEquals(response.headers.get("retry-after"), "5");
    assertEquals((await errorOf(response, 503)).code, "queue_full");
    await server.fetch(`/api/merges/${second}`, { method: "DELETE" });
    await start(server, id);
    await merger.current(1);
    await merger.complete();
    await server.until(first, "done");
    assertEquals((await errorOf(await server.post("/api/merges", request), 507)).code, "too_many_merges");
  });
});

Deno.test("an adapter that a merge still needs cannot be deleted", async () => {
  const merger = new ManualMerger();
  await withServer({ mergers: [merger] }, async (server) => {
    const { id } = await server.upload("language");
    const merge = await start(server, id);
    const remove = () => server.fetch(`/api/adapters/${id}`, { method: "DELETE" });
    assertEquals((await errorOf(await remove(), 409)).code, "adapter_in_use");
    await merger.current(1);
    await merger.complete();
    await server.until(merge, "done");
    assertEquals((await remove()).status, 204);
  });
});

Deno.test("a stopped server puts what runs back into the queue, and the next one takes it up in order", () =>
  withFolder(async (folder) => {
    const ids = await onData(folder, { mergers: [new ManualMerger()] }, async (server) => {
      const { id } = await server.upload("language");
      return [await start(server, id), await start(server, id)];
    });
    const merger = new ManualMerger();
    await onData(folder, { mergers: [merger] }, async (server) => {
      assertEquals((await merger.current(1)).id, ids[0]);
      await merger.complete();
      assertEquals((await merger.current(2)).id, ids[1]);
      assertEquals(stateOf(server, ids[0]!), "done");
    });
  }));

/** Leaves a merge as a killed server leaves it. */
async function interrupted(folder: string, interruptions: number): Promise<string> {
  const id = await onData(folder, { mergers: [new ManualMerger()] }, async (server) => {
    const adapter = await server.upload("language");
    return await start(server, adapter.id);
  });
  const { DatabaseSync } = await import("node:sqlite");
  using database = new DatabaseSync(`${folder}/loom.sqlite`);
  database.prepare("UPDATE merges SET state = 'running', interruptions = ? WHERE id = ?").run(
    interruptions,
    id,
  );
  return id;
}

Deno.test("after a crash a running merge starts again, without what it had half written", () =>
  withFolder(async (folder) => {
    const id = await interrupted(folder, 0);
    await Deno.mkdir(`${folder}/merges/${id}/.merged.partial-1-abc`, { recursive: true });
    await Deno.mkdir(`${folder}/merges/unknown`);
    await Deno.mkdir(`${folder}/incoming/half`);
    const merger = new ManualMerger();
    await onData(folder, { mergers: [merger] }, async () => {
      assertEquals((await merger.current(1)).id, id);
      assertEquals(
        [...Deno.readDirSync(`${folder}/merges`)].map(({ name }) => name).filter((name) => name !== id),
        [],
      );
      assertEquals([...Deno.readDirSync(`${folder}/incoming`)], []);
    });
  }));

/** Names of what is left of each merge. */
function leftOf(folder: string): string[] {
  return [...Deno.readDirSync(`${folder}/merges`)]
    .flatMap(({ name }) => [...Deno.readDirSync(`${folder}/merges/${name}`)]).map(({ name }) => name);
}

Deno.test("what was finished of a merge stays until it has ended: over a crash, a stop and a lost device", () =>
  withFolder(async (folder) => {
    const id = await interrupted(folder, 0);
    await Deno.mkdir(`${folder}/merges/${id}/merged.unfinished`, { recursive: true });
    await onData(folder, { mergers: [new ManualMerger()] }, () => Promise.resolve());
    assertEquals(leftOf(folder), ["merged.unfinished"], "after a crash, and after a stop");
    const merger = new ManualMerger();
    await onData(folder, { mergers: [merger] }, async (server) => {
      await merger.current(1);
      merger.fail("device_lost");
      await merger.current(2);
      assertEquals(leftOf(folder), ["merged.unfinished"], "after a lost device");
      merger.fail("not_finite");
      await server.until(id, "failed");
      // Its files go after its state has changed.
      while ([...Deno.readDirSync(`${folder}/merges`)].length > 0) {
        await new Promise((go) => setTimeout(go, 5));
      }
    });
  }));

Deno.test("after a crash a merge whose result is complete is done, and does not run again", () =>
  withFolder(async (folder) => {
    const id = await interrupted(folder, 0);
    await writeResult(`${folder}/merges/${id}/merged`);
    const merger = new ManualMerger();
    await onData(folder, { mergers: [merger] }, async (server) => {
      const { state, result } = server.services.merges.get(id);
      assertEquals([state, result?.rank, merger.started.length], ["done", 4, 0]);
      assertEquals((await server.fetch(`/api/merges/${id}/files/loom.json`)).status, 200);
    });
  }));

Deno.test("a merge in the middle of which the server crashed every time is given up", () =>
  withFolder(async (folder) => {
    const id = await interrupted(folder, 3);
    await onData(folder, { mergers: [new ManualMerger()] }, (server) => {
      assertEquals(server.services.merges.get(id).error?.code, "interrupted");
      return Promise.resolve();
    });
  }));

Deno.test("openServices() refuses a data folder that another server works on", () =>
  withFolder(async (folder) => {
    await onData(folder, {}, async () => {
      const error = await onData(folder, {}, () => Promise.resolve()).catch((error) => error);
      assertEquals(error.code, "data_in_use");
    });
  }));
