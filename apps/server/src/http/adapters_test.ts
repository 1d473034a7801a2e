import { assert, assertEquals } from "@std/assert";
import { type Zippable, zipSync } from "fflate";
import type { AdapterDetail, AdapterResource } from "../adapters/adapter.ts";
import { adapterPath, errorOf, formOf, PEFT_FILES, withServer } from "../test_support/server.ts";

async function zipOf(folder: string, prefix = ""): Promise<Uint8Array<ArrayBuffer>> {
  const files: Zippable = {};
  for (const name of PEFT_FILES) files[`${prefix}${name}`] = await Deno.readFile(`${folder}/${name}`);
  return zipSync(files) as Uint8Array<ArrayBuffer>;
}

Deno.test("POST /api/adapters keeps the files of a form, and says what they are", () =>
  withServer({}, async (server, data) => {
    const body = await formOf(adapterPath("language"), "language/");
    const response = await server.fetch("/api/adapters", { method: "POST", body });
    assertEquals(response.status, 201);
    const adapter = await response.json() as AdapterResource;
    assertEquals(adapter.name, "language");
    assertEquals([adapter.format, adapter.modules, adapter.ranks, adapter.dtype], ["peft", 28, [8], "F32"]);
    assertEquals(response.headers.get("location"), `/api/adapters/${adapter.id}`);
    for (const { name, bytes } of adapter.files) {
      const kept = await Deno.readFile(`${data}/adapters/${adapter.id}/${name}`);
      assertEquals(kept.length, bytes);
      assertEquals(kept, await Deno.readFile(`${adapterPath("language")}/${name}`));
    }
    assertEquals((await server.json<AdapterResource[]>("/api/adapters")).map(({ id }) => id), [adapter.id]);
  }));

Deno.test("POST /api/adapters gives the same adapter for the same files, as a form, a zip and again", () =>
  withServer({}, async (server) => {
    const first = await server.upload("language");
    const again = await server.fetch("/api/adapters?name=other", {
      method: "POST",
      body: await formOf(adapterPath("language")),
    });
    assertEquals(again.status, 200);
    assertEquals(await again.json(), first);
    for (const prefix of ["", "some/folder/"]) {
      const zip = await server.fetch("/api/adapters?name=language.zip", {
        method: "POST",
        headers: { "content-type": "application/zip" },
        body: await zipOf(adapterPath("language"), prefix),
      });
      assertEquals((await zip.json() as AdapterResource).id, first.id);
    }
    assertEquals((await server.json<AdapterResource[]>("/api/adapters")).length, 1);
  }));

/** The files of a PEFT folder with a tensor that a plain LoRA does not have. */
async function biasedForm(): Promise<FormData> {
  const folder = adapterPath("language");
  const bytes = await Deno.readFile(`${folder}/adapter_model.safetensors`);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const size = bytes.length - 8 - length;
  header["base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"] = {
    dtype: "F32",
    shape: [1],
    data_offsets: [size, size + 4],
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const start = new Uint8Array(8);
  new DataView(start.buffer).setBigUint64(0, BigInt(text.length), true);
  const weights = new Blob([start, text, bytes.subarray(8 + length), new Uint8Array(4)]);
  const form = new FormData();
  form.append(
    "file",
    new Blob([await Deno.readFile(`${folder}/adapter_config.json`)]),
    "adapter_config.json",
  );
  form.append("file", weights, "adapter_model.safetensors");
  return form;
}

Deno.test("POST /api/adapters takes what is no plain LoRA only when its loss is accepted, and merges remember that", () =>
  withServer({}, async (server) => {
    const send = async (query: string) =>
      server.fetch(`/api/adapters${query}`, { method: "POST", body: await biasedForm() });
    assertEquals((await errorOf(await send(""), 422)).code, "unsupported_tensor");
    const response = await send("?name=biased&drop=lora_bias");
    assertEquals(response.status, 201);
    const adapter = await response.json() as AdapterResource;
    assertEquals([adapter.name, adapter.drop, adapter.expand], ["biased", ["lora_bias"], undefined]);
    assertEquals(await (await send("?drop=lora_bias&drop=lora_bias")).json(), adapter);
    const { id } = await server.startMerge({ method: "svd", adapters: [{ id: adapter.id }] });
    const { result } = await server.until(id, "done", "failed");
    assert(result);
    const record = await server.json<{ recipe: { adapters: object[] } }>(`/api/merges/${id}/files/loom.json`);
    assertEquals((record.recipe.adapters[0] as { drop?: unknown }).drop, ["lora_bias"]);
  }));

Deno.test("POST /api/adapters leaves out what is no part of an adapter", () =>
  withServer({}, async (server) => {
    const first = await server.upload("language");
    const form = await formOf(adapterPath("language"), "language/");
    form.append("file", new Blob(["notes"]), "language/README.md");
    form.append("file", new Blob(["state"]), "language/optimizer.pt");
    form.append("file", new Blob(["junk"]), "language/.DS_Store");
    form.append("file", new Blob(["junk"]), "__MACOSX/language/._adapter_config.json");
    const { id } = await server.json<AdapterResource>("/api/adapters", { method: "POST", body: form });
    assertEquals(id, first.id);
  }));

Deno.test("two uploads of the same files at a time give one adapter", () =>
  withServer({}, async (server, data) => {
    const both = await Promise.all([server.upload("speech"), server.upload("speech")]);
    assertEquals(both[0], both[1]);
    assertEquals([...Deno.readDirSync(`${data}/adapters`)].length, 1);
    assertEquals([...Deno.readDirSync(`${data}/incoming`)], []);
  }));

Deno.test("GET /api/adapters/{id} shows norms and spectra once they are known", () =>
  withServer({}, async (server) => {
    const { id } = await server.upload("language");
    await server.services.adapters.inspected();
    const { inspection, problem } = await server.json<AdapterDetail>(`/api/adapters/${id}`);
    assertEquals(problem, null);
    assertEquals(inspection?.modules.length, 28);
    assert(inspection!.norm > 0);
    assert(!JSON.stringify(inspection).includes("/tmp/"), "no path of the server leaves it");
  }));

Deno.test("DELETE /api/adapters/{id} removes an adapter and its files", () =>
  withServer({}, async (server, data) => {
    const { id } = await server.upload("language");
    assertEquals((await server.fetch(`/api/adapters/${id}`, { method: "DELETE" })).status, 204);
    assertEquals([...Deno.readDirSync(`${data}/adapters`)], []);
    const error = await errorOf(await server.fetch(`/api/adapters/${id}`), 404);
    assertEquals(error.code, "not_found");
  }));

Deno.test("POST /api/adapters names the problem of a lone weight file, and keeps nothing", () =>
  withServer({}, async (server, data) => {
    const response = await server.fetch("/api/adapters?name=adapter_model.safetensors", {
      method: "POST",
      body: await Deno.readFile(`${adapterPath("language")}/adapter_model.safetensors`),
    });
    const error = await errorOf(response, 422);
    assertEquals(error.code, "config_missing");
    assert(!error.message.includes(data) && !error.where.includes(data), error.message);
    assertEquals([...Deno.readDirSync(`${data}/adapters`)], []);
    assertEquals([...Deno.readDirSync(`${data}/incoming`)], []);
  }));
