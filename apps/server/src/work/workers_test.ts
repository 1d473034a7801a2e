/** The threads themselves, with the CPU as their device. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MergeError, type ProgressEvent, recipeFromObject } from "@lora-loom/merge";
import { adapterPath, onData, withFolder } from "../test_support/server.ts";
import { Inspector } from "./inspector.ts";
import { WorkerMerger } from "./merger.ts";

const recipeTo = (path: string, method = "svd") =>
  recipeFromObject({
    method,
    adapters: [{ path: adapterPath("language") }, { path: adapterPath("speech") }],
    parameters: { rank: 4 },
    output: { path },
  }, "/");

Deno.test("WorkerMerger merges in its thread, tells every module, and is there for the next one", () =>
  withFolder(async (folder) => {
    const merger = new WorkerMerger("cpu");
    try {
      for (const name of ["one", "two"]) {
        const events: ProgressEvent[] = [];
        const { signal } = new AbortController();
        const recipe = recipeTo(`${folder}/${name}`);
        await merger.run({ id: name, recipe, signal, onProgress: (event) => events.push(event) });
        assertEquals(events.map(({ type }) => type), ["start", ...Array(28).fill("module"), "finish"]);
        assert(Deno.statSync(`${folder}/${name}/adapter_model.safetensors`).isFile);
      }
      assertEquals(merger.state.device, { name: "CPU (float64)", backend: "cpu", class: "cpu" });
    } finally {
      merger.close();
    }
  }));

Deno.test("WorkerMerger stops a merge that is cancelled, and passes on what went wrong", () =>
  withFolder(async (folder) => {
    const merger = new WorkerMerger("cpu");
    try {
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const task = { id: "a", recipe: recipeTo(`${folder}/a`), signal: controller.signal, onProgress };
      assertEquals((await assertRejects(() => merger.run(task), MergeError)).code, "cancelled");
      assertEquals([...Deno.readDirSync(folder)], []);
      await Deno.mkdir(`${folder}/b`);
      const second = {
        ...task,
        id: "b",
        recipe: recipeTo(`${folder}/b`),
        signal: new AbortController().signal,
      };
      assertEquals((await assertRejects(() => merger.run(second), MergeError)).code, "target_exists");
    } finally {
      merger.close();
    }
  }));

Deno.test("WorkerMerger fails the merge of a thread that is ended, and starts a new one", () =>
  withFolder(async (folder) => {
    const merger = new WorkerMerger("cpu");
    try {
      const { signal } = new AbortController();
      const task = { id: "a", recipe: recipeTo(`${folder}/a`), signal, onProgress: () => merger.restart() };
      assertEquals((await assertRejects(() => merger.run(task), MergeError)).code, "worker_crashed");
      await merger.run({ id: "b", recipe: recipeTo(`${folder}/b`), signal, onProgress() {} });
    } finally {
      merger.close();
    }
  }));

Deno.test("a merge whose GPU is lost in the middle runs once more on a new one, and gives the same bytes", () =>
  withFolder(async (folder) => {
    const mark = `${folder}/lose`;
    await Deno.writeTextFile(mark, "");
    Deno.env.set("LOOM_TEST_LOSE_DEVICE", mark);
    const losing = new URL("../test_support/losing_merge_worker.ts", import.meta.url);
    const mergers = [new WorkerMerger("auto", losing)];
    try {
      await onData(`${folder}/data`, { mergers }, async (server) => {
        const adapters = [await server.upload("language"), await server.upload("speech")];
        const request = { method: "lego", adapters: adapters.map(({ id }) => ({ id })) };
        const weights = async () => {
          const { id } = await server.startMerge(request);
          const { state, error, result } = await server.until(id, "done", "failed");
          assertEquals([state, error], ["done", null]);
          assertEquals(result!.device.backend, "webgpu");
          return result!.files.find(({ name }) => name === "adapter_model.safetensors")!.sha256;
        };
        const first = await weights();
        await assertRejects(() => Deno.stat(mark), Deno.errors.NotFound, undefined, "a device was lost");
        assertEquals(await weights(), first);
      });
    } finally {
      Deno.env.delete("LOOM_TEST_LOSE_DEVICE");
    }
  }));

Deno.test("Inspector describes, inspects and plans in its thread, and passes on what went wrong", async () => {
  const inspector = new Inspector();
  try {
    const facts = await inspector.describe({ path: adapterPath("language") });
    assertEquals([facts.format, facts.modules], ["peft", 28]);
    const [inspection, plan] = await Promise.all([
      inspector.inspect({ path: adapterPath("language") }),
      inspector.plan(recipeTo("/nowhere")),
    ]);
    assertEquals([inspection.modules.length, plan], [28, { modules: 28, rank: 4 }]);
    const error = await assertRejects(() => inspector.describe({ path: "/nowhere" }), MergeError);
    assertEquals(error.code, "not_found");
  } finally {
    inspector.close();
  }
  await assertRejects(() => inspector.describe({ path: adapterPath("language") }), MergeError);
});
