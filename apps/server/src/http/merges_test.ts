import { assert, assertEquals } from "@std/assert";
import { unzipSync } from "fflate";
import { recipeFromObject, runMerge } from "@lora-loom/merge";
import { CpuDevice } from "@lora-loom/tensor";
import type { MergeResource } from "../merges/merge.ts";
import { adapterPath, errorOf, type TestServer, withFolder, withServer } from "../test_support/server.ts";

async function mergedPair(server: TestServer): Promise<MergeResource> {
  const [one, two] = [await server.upload("language"), await server.upload("category")];
  const { id } = await server.startMerge({
    name: "both",
    method: "lego",
    adapters: [{ id: one.id }, { id: two.id, weight: 0.5 }],
    parameters: { rank: 6 },
  });
  return await server.until(id, "done", "failed");
}

Deno.test("POST /api/merges gives the bytes that the engine gives for the same recipe", () =>
  withServer({}, async (server) => {
    const merge = await mergedPair(server);
    assertEquals(merge.error, null);
    assertEquals([merge.result!.rank, merge.result!.modules], [6, 28]);
    const file = await server.fetch(`/api/merges/${merge.id}/files/adapter_model.safetensors`);
    await withFolder(async (folder) => {
      const recipe = recipeFromObject({
        method: "lego",
        adapters: [{ path: adapterPath("language") }, { path: adapterPath("category"), weight: 0.5 }],
        parameters: { rank: 6 },
        output: { path: `${folder}/merged` },
      }, "/");
      await using device = new CpuDevice();
      await runMerge(recipe, { device });
      const expected = await Deno.readFile(`${folder}/merged/adapter_model.safetensors`);
      assertEquals(new Uint8Array(await file.arrayBuffer()), expected);
    });
  }));

Deno.test("GET /api/merges/{id}/archive.zip holds every file of the result", () =>
  withServer({}, async (server) => {
    const { id, result } = await mergedPair(server);
    const response = await server.fetch(`/api/merges/${id}/archive.zip`);
    assertEquals(response.headers.get("content-disposition"), 'attachment; filename="both.zip"');
    const files = unzipSync(new Uint8Array(await response.arrayBuffer()));
    assertEquals(Object.keys(files).sort(), result!.files.map(({ name }) => `both/${name}`).sort());
    for (const { name } of result!.files) {
      const file = await server.fetch(`/api/merges/${id}/files/${name}`);
      assertEquals(new Uint8Array(await file.arrayBuffer()), files[`both/${name}`]);
    }
  }));

Deno.test("GET /api/merges/{id}/files/{name} sends a report that may do nothing, and nothing twice", () =>
  withServer({}, async (server) => {
    const { id } = await mergedPair(server);
    const report = await server.fetch(`/api/merges/${id}/files/report.html`);
    assertEquals(report.headers.get("content-type"), "text/html; charset=utf-8");
    assert(/default-src 'none'.*sandbox/.test(report.headers.get("content-security-policy")!));
    await report.body!.cancel();
    const headers = { "if-none-match": report.headers.get("etag")! };
    const again = await server.fetch(`/api/merges/${id}/files/report.html`, { headers });
    assertEquals([again.status, await again.text()], [304, ""]);
  }));

Deno.test("POST /api/merges refuses a recipe before it waits, with the engine's own words", () =>
  withServer({}, async (server) => {
    const { id } = await server.upload("language");
    const refuse = async (request: unknown, status: number) =>
      (await errorOf(await server.post("/api/merges", request), status)).code;
    const adapters = [{ id }];
    assertEquals(await refuse({ method: "legoo", adapters }, 422), "unknown_method");
    assertEquals(await refuse({ method: "lego", adapters, parameters: { rank: 0 } }, 422), "parameter_range");
    assertEquals(
      await refuse({ method: "lego", adapters, parameters: { rank: 99 } }, 422),
      "rank_out_of_range",
    );
    assertEquals(await refuse({ method: "lego", adapters, parameters: { ranks: 4 } }, 422), "unknown_key");
    assertEquals(
      await refuse({ method: "lego", adapters, include: ["*.nothing"] }, 422),
      "no_module_matches",
    );
    assertEquals(await refuse({ method: "iteris", adapters }, 422), "missing_key");
    assertEquals(await refuse({ method: "lego", adapters: [] }, 422), "invalid_request");
    assertEquals(await refuse({ method: "lego", adapters: [{ id: "0123456789abcdef" }] }, 404), "not_found");
    assertEquals(await server.json<MergeResource[]>("/api/merges"), []);
  }));

Deno.test("GET /api/merges reads on page by page", () =>
  withServer({}, async (server) => {
    const { id } = await server.upload("language");
    const ids: string[] = [];
    for (let count = 0; count < 3; count++) {
      ids.unshift(
        (await server.startMerge({ method: "svd", adapters: [{ id }], parameters: { rank: 2 } })).id,
      );
    }
    const page = async (query: string) =>
      (await server.json<MergeResource[]>(`/api/merges?${query}`)).map((merge) => merge.id);
    assertEquals(await page("limit=2"), ids.slice(0, 2));
    assertEquals(await page(`limit=2&before=${ids[1]}`), ids.slice(2));
    for (const limit of ["0", "201", "x", "1.5"]) {
      const error = await errorOf(await server.fetch(`/api/merges?limit=${limit}`), 400);
      assertEquals(error.code, "invalid_limit");
    }
    for (const one of ids) await server.until(one, "done");
  }));

Deno.test("GET /api/merges/{id}/files says that a merge is not done", () =>
  withServer({}, async (server) => {
    const { id } = await server.upload("language");
    const merge = await server.startMerge({ method: "svd", adapters: [{ id }], parameters: { rank: 2 } });
    for (const path of ["files/loom.json", "archive.zip"]) {
      const error = await errorOf(await server.fetch(`/api/merges/${merge.id}/${path}`), 409);
      assertEquals(error.code, "not_done");
    }
    await server.until(merge.id, "done");
    const error = await errorOf(await server.fetch(`/api/merges/${merge.id}/files/other.json`), 404);
    assertEquals(error.code, "not_found");
  }));

Deno.test("GET /api/merges/{id}/archive.zip?format= converts the result, and leaves nothing behind", () =>
  withServer({}, async (server, data) => {
    const { id } = await mergedPair(server);
    const archive = async (format: string) => {
      const response = await server.fetch(`/api/merges/${id}/archive.zip?format=${format}`);
      assertEquals(response.status, 200);
      return unzipSync(new Uint8Array(await response.arrayBuffer()));
    };
    assert("both/adapter_model.safetensors" in await archive("peft"), "its own layout comes as it is");
    const mlx = await archive("mlx");
    assert(Object.keys(mlx).includes("both-mlx/adapters.safetensors"), Object.keys(mlx).join());
    const wrong = await server.fetch(`/api/merges/${id}/archive.zip?format=..`);
    assertEquals((await errorOf(wrong, 400)).code, "unknown_format");
    // GGUF needs the base model, which this merge did not name.
    const impossible = await errorOf(await server.fetch(`/api/merges/${id}/archive.zip?format=gguf`), 422);
    assert(!JSON.stringify(impossible).includes(data));
    assertEquals([...Deno.readDirSync(`${data}/incoming`)], []);
  }));

Deno.test("DELETE /api/merges/{id} removes a merge that has ended, with its files", () =>
  withServer({}, async (server, data) => {
    const { id } = await mergedPair(server);
    assertEquals((await server.fetch(`/api/merges/${id}`, { method: "DELETE" })).status, 204);
    assertEquals([...Deno.readDirSync(`${data}/merges`)], []);
    await errorOf(await server.fetch(`/api/merges/${id}`), 404);
  }));
