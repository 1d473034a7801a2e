/** Requests that mean harm, or are broken: each gets its 4xx with a code, and leaves nothing behind. */
import { assert, assertEquals } from "@std/assert";
import { strToU8, zipSync } from "fflate";
import {
  adapterPath,
  errorOf,
  formOf,
  PEFT_FILES,
  type TestServer,
  withServer,
} from "../test_support/server.ts";
import type { Limits } from "../limits.ts";

const zipped = (files: Record<string, Uint8Array>) => zipSync(files) as Uint8Array<ArrayBuffer>;

/** Sends an upload that must be refused, and looks that nothing of it stays. */
async function refused(
  server: TestServer,
  data: string,
  status: number,
  init: RequestInit,
  query = "",
): Promise<string> {
  const error = await errorOf(
    await server.fetch(`/api/adapters${query}`, { method: "POST", ...init }),
    status,
  );
  assertEquals([...Deno.readDirSync(`${data}/incoming`)], []);
  assertEquals([...Deno.readDirSync(`${data}/adapters`)], []);
  assert(!JSON.stringify(error).includes(data), "no path of the server leaves it");
  return error.code;
}

const ESCAPES = [
  "../../evil.safetensors",
  "/etc/evil.safetensors",
  "a/../../evil.json",
  "a//evil.json",
  "C:\\evil.safetensors",
  "..\\evil.json",
  "evil\u0000.json",
  `${"x".repeat(300)}.json`,
];

Deno.test("names that lead elsewhere are refused in a zip", () =>
  withServer({}, async (server, data) => {
    const headers = { "content-type": "application/zip" };
    for (const name of ESCAPES) {
      const body = zipped({ [name]: strToU8("{}") });
      assertEquals(await refused(server, data, 400, { headers, body }), "invalid_name", name);
    }
  }));

Deno.test("names that lead elsewhere are refused in a form and in ?name=", () =>
  withServer({}, async (server, data) => {
    // Browsers and fetch() clean such names; a program need not.
    for (const name of ESCAPES.filter((name) => !name.includes("\u0000") && !name.includes("\\"))) {
      const body = [
        "--x",
        `content-disposition: form-data; name="file"; filename="${name}"`,
        "content-type: application/octet-stream",
        "",
        "{}",
        "--x--",
        "",
      ].join("\r\n");
      const headers = { "content-type": "multipart/form-data; boundary=x" };
      assertEquals(await refused(server, data, 400, { headers, body }), "invalid_name", name);
    }
    for (const name of ["../../evil.safetensors", "/evil.safetensors", "a\u0000.safetensors"]) {
      const query = `?name=${encodeURIComponent(name)}`;
      assertEquals(await refused(server, data, 400, { body: "x" }, query), "invalid_name", name);
    }
  }));

Deno.test("an upload that is too large is refused, whether it says so or not", () => {
  const limits: Partial<Limits> = { uploadBytes: 10_000, headerBytes: 1000 };
  return withServer({ limits }, async (server, data) => {
    const body = new Uint8Array(20_000);
    const query = "?name=big.safetensors";
    const declared = { body, headers: { "content-length": "20000" } };
    assertEquals(await refused(server, data, 413, declared, query), "upload_too_large");
    const streamed = ReadableStream.from([body.subarray(0, 8000), body.subarray(8000)]);
    assertEquals(await refused(server, data, 413, { body: streamed }, query), "upload_too_large");
    const form = await formOf(adapterPath("language"));
    assertEquals(await refused(server, data, 413, { body: form }), "upload_too_large");
    // A bomb: a few bytes that unpack to many.
    const bomb = zipped({ "adapter_model.safetensors": new Uint8Array(5_000_000) });
    const headers = { "content-type": "application/zip" };
    assert(bomb.length < 10_000);
    assertEquals(await refused(server, data, 413, { headers, body: bomb }), "upload_too_large");
  });
});

Deno.test("a header, a configuration and a number of files that are too large are refused", () =>
  withServer({ limits: { headerBytes: 1000, configBytes: 500, filesPerUpload: 2 } }, async (server, data) => {
    const header = new Uint8Array(64);
    new DataView(header.buffer).setBigUint64(0, 1001n, true);
    const one = await refused(server, data, 413, { body: header }, "?name=a.safetensors");
    assertEquals(one, "header_too_large");
    const form = new FormData();
    form.append("file", new Blob([" ".repeat(501)]), "adapter_config.json");
    assertEquals(await refused(server, data, 413, { body: form }), "upload_too_large");
    const many = new FormData();
    for (let count = 0; count < 3; count++) many.append("file", new Blob(["{}"]), `${count}.json`);
    assertEquals(await refused(server, data, 413, { body: many }), "too_many_files");
  }));

Deno.test("malformed forms and archives are refused", () =>
  withServer({}, async (server, data) => {
    const form = (type: string, body: string) => ({ headers: { "content-type": type }, body });
    assertEquals(await refused(server, data, 400, form("multipart/form-data", "x")), "malformed_form");
    const cut = form(
      "multipart/form-data; boundary=x",
      '--x\r\ncontent-disposition: form-data; name="f"; filename="a.json"\r\n\r\n{',
    );
    assertEquals(await refused(server, data, 400, cut), "malformed_form");
    const zip = zipped({
      "adapter_config.json": await Deno.readFile(`${adapterPath("language")}/adapter_config.json`),
    });
    const headers = { "content-type": "application/zip" };
    const send = (body: Uint8Array<ArrayBuffer>) => refused(server, data, 400, { headers, body });
    assertEquals(await send(zip.slice(0, zip.length - 22)), "malformed_zip");
    assertEquals(await send(zip.slice(0, 200)), "malformed_zip");
    assertEquals(await send(strToU8("no archive at all") as Uint8Array<ArrayBuffer>), "malformed_zip");
    const method = zip.slice();
    // A compression that nobody has.
    method[8] = 99;
    assertEquals(await send(method), "malformed_zip");
  }));

Deno.test("options of an upload that are none are refused", () =>
  withServer({}, async (server, data) => {
    for (
      const query of ["?drop=", `?drop=${"x".repeat(301)}`, "?expand=yes", "?drop=a".padEnd(800, "&drop=a")]
    ) {
      const init = { body: await formOf(adapterPath("language")) };
      assertEquals(await refused(server, data, 400, init, query), "invalid_option", query.slice(0, 20));
    }
  }));

Deno.test("patterns that could keep a matcher busy forever are just patterns", () =>
  withServer({}, async (server) => {
    const { id } = await server.upload("language");
    const request = { method: "svd", adapters: [{ id }], include: ["*a".repeat(200), "{*,?}".repeat(90)] };
    const { code } = await errorOf(await server.post("/api/merges", { ...request, exclude: ["*"] }), 422);
    assertEquals(code, "no_module_matches");
  }));

Deno.test("an upload without adapter, of several adapters or of a pickle is refused", () =>
  withServer({}, async (server, data) => {
    const upload = (names: readonly string[]) => {
      const body = new FormData();
      for (const name of names) body.append("file", new Blob(["{}"]), name);
      return refused(server, data, 422, { body });
    };
    assertEquals(await upload([]), "empty_upload");
    assertEquals(await upload(["README.md"]), "empty_upload");
    assertEquals(await upload(["adapter_config.json"]), "empty_upload");
    assertEquals(await upload(["adapter_config.json", "adapter_model.bin"]), "pickle_refused");
    assertEquals(await upload(["a/adapter_config.json", "b/adapter_config.json"]), "several_adapters");
    assertEquals(await upload(["adapter_config.json", "adapter_config.json"]), "duplicate_name");
    assertEquals(await refused(server, data, 400, { body: "x" }), "missing_name");
    assertEquals(await refused(server, data, 400, { body: "x" }, "?name=notes.txt"), "missing_name");
    assertEquals(await refused(server, data, 400, {}, "?name=a.safetensors"), "missing_body");
  }));

Deno.test("malformed safetensors and configurations are refused with the reader's own code", () =>
  withServer({}, async (server, data) => {
    const folder = adapterPath("language");
    const [config, weights] = await Promise.all(PEFT_FILES.map((name) => Deno.readFile(`${folder}/${name}`)));
    const upload = (config: Uint8Array<ArrayBuffer>, weights: Uint8Array<ArrayBuffer>) => {
      const body = new FormData();
      body.append("file", new Blob([config]), "adapter_config.json");
      body.append("file", new Blob([weights]), "adapter_model.safetensors");
      return refused(server, data, 422, { body });
    };
    const flipped = weights!.slice();
    flipped[8] = 0x5b;
    assertEquals(await upload(config!, weights!.slice(0, 4)), "header_too_small");
    assertEquals(await upload(config!, weights!.slice(0, 100)), "invalid_header_length");
    assertEquals(await upload(config!, weights!.slice(0, -4)), "metadata_incomplete_buffer");
    assertEquals(await upload(config!, flipped), "invalid_header_start");
    assertEquals(await upload(config!.slice(0, 20), weights!), "json_invalid");
    const dora = JSON.parse(new TextDecoder().decode(config));
    const text = strToU8(JSON.stringify({ ...dora, use_dora: true })) as Uint8Array<ArrayBuffer>;
    assertEquals(await upload(text, weights!), "unsupported_config");
  }));

Deno.test("requests of the wrong type, size or form are refused", () =>
  withServer({ limits: { requestBytes: 1000, adaptersPerMerge: 2 } }, async (server) => {
    const send = async (status: number, body: string, type = "application/json") => {
      const init = { method: "POST", headers: { "content-type": type }, body };
      return (await errorOf(await server.fetch("/api/merges", init), status)).code;
    };
    const id = "0123456789abcdef01234567";
    const merge = (extra: object) => JSON.stringify({ method: "lego", adapters: [{ id }], ...extra });
    assertEquals(await send(415, merge({}), "text/plain"), "wrong_type");
    assertEquals(await send(415, merge({}), "application/x-www-form-urlencoded"), "wrong_type");
    assertEquals(await send(413, `{"name": "${"x".repeat(2000)}"}`), "request_too_large");
    assertEquals(await send(400, "{"), "malformed_json");
    for (const body of ["[]", "null", "1", '"text"', "{}"]) {
      assertEquals(await send(422, body), "invalid_request");
    }
    assertEquals(await send(422, merge({ method: 3 })), "invalid_request");
    assertEquals(await send(422, merge({ adapters: "all" })), "invalid_request");
    assertEquals(await send(422, merge({ parameters: [] })), "invalid_request");
    assertEquals(await send(422, merge({ parameters: { rank: { $gt: 0 } } })), "invalid_request");
    assertEquals(await send(422, merge({ adapters: [{ id, weight: "1e999" }] })), "invalid_request");
    assertEquals(await send(422, merge({ adapters: [{ id }, { id }, { id }] })), "too_many_inputs");
    assertEquals(await send(422, merge({ outptu: 1 })), "unknown_key");
    assertEquals(
      await send(422, '{"__proto__": {"method": "lego"}, "method": "lego", "adapters": []}'),
      "unknown_key",
    );
  }));

Deno.test("a recipe that points outside is refused", () =>
  withServer({ models: adapterPath("..") }, async (server) => {
    const { id } = await server.upload("language");
    const refuse = async (status: number, request: object) =>
      (await errorOf(
        await server.post("/api/merges", { method: "lego", adapters: [{ id }], ...request }),
        status,
      )).code;
    assertEquals(await refuse(422, { adapters: [{ path: "/etc/passwd" }] }), "unknown_key");
    assertEquals(await refuse(422, { adapters: [{ id: "../../../etc/passwd" }] }), "invalid_request");
    assertEquals(await refuse(422, { output: { path: "/tmp/evil" } }), "unknown_key");
    for (const base_model of ["../base", "/etc", "..", ".", "base/..", "base/config.json", "\u0000"]) {
      assertEquals(await refuse(422, { base_model }), "unknown_model", base_model);
    }
    const adapters = [{ id, calibration: "../../etc/passwd" }];
    assertEquals(await refuse(422, { method: "iteris", adapters }), "invalid_request");
    const unknown = [{ id, calibration: "0123456789abcdef01234567" }];
    assertEquals(await refuse(404, { method: "iteris", base_model: "base", adapters: unknown }), "not_found");
  }));

Deno.test("paths that lead out of the API and the page give 404", () =>
  withServer({}, async (server) => {
    for (
      const path of [
        "/../loom.sqlite",
        "/..%2f..%2floom.sqlite",
        "/%2e%2e/token",
        "/token",
        "/main.ts",
        "/http/app.ts",
        "/api",
        "/api/adapters/..%2f..%2ftoken",
        "/api/merges/x/files/..%2f..%2f..%2ftoken",
        "/api/merges/%00/events",
      ]
    ) {
      const { code } = await errorOf(await server.fetch(path), 404);
      assert(code === "no_such_route" || code === "not_found", `${path}: ${code}`);
    }
  }));

Deno.test("calibration text that is none is refused", () =>
  withServer({ limits: { calibrationBytes: 100, calibrations: 1 } }, async (server, data) => {
    const send = async (status: number, body: BodyInit, query = "") => {
      const response = await server.fetch(`/api/calibrations${query}`, { method: "POST", body });
      return (await errorOf(response, status)).code;
    };
    assertEquals(await send(422, ""), "invalid_row");
    assertEquals(await send(422, "{"), "invalid_row");
    assertEquals(await send(422, '{"answer": 1}'), "invalid_row");
    assertEquals(await send(422, "null"), "invalid_row");
    assertEquals(await send(422, new Uint8Array([0xff, 0xfe])), "not_text");
    assertEquals(await send(413, "x".repeat(101)), "request_too_large");
    assertEquals(await send(400, '{"text": "a"}', "?name=..%2f..%2fevil"), "invalid_name");
    await server.json("/api/calibrations", { method: "POST", body: '{"text": "a"}\n{"prompt": "b"}\n' });
    assertEquals(await send(507, '{"text": "c"}'), "too_many_calibrations");
    assertEquals([...Deno.readDirSync(`${data}/incoming`)], []);
  }));

Deno.test("a full store takes no more", () =>
  withServer({ limits: { adapters: 1 } }, async (server) => {
    await server.upload("language");
    const init = { method: "POST", body: await formOf(adapterPath("speech")) };
    assertEquals((await errorOf(await server.fetch("/api/adapters", init), 507)).code, "too_many_adapters");
  }));

Deno.test("a store without room takes no more", () =>
  withServer({ limits: { storeBytes: 600_132 } }, async (server) => {
    const { id } = await server.upload("language");
    const init = { method: "POST", body: await formOf(adapterPath("speech")) };
    assertEquals((await errorOf(await server.fetch("/api/adapters", init), 507)).code, "store_full");
    const merge = await server.post("/api/merges", { method: "svd", adapters: [{ id }] });
    assertEquals((await errorOf(merge, 507)).code, "store_full");
  }));

Deno.test("an upload that stands still or breaks off is given up", () =>
  withServer({ limits: { idleSeconds: 0.05, uploads: 1 } }, async (server, data) => {
    const query = "?name=a.safetensors";
    let isCancelled = false;
    const still = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(4)),
      cancel: () => {
        isCancelled = true;
      },
    });
    assertEquals(await refused(server, data, 408, { body: still }, query), "upload_stalled");
    assert(isCancelled);
    const broken = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(4)),
      pull: (controller) => controller.error(new Error("the connection is gone")),
    });
    assertEquals(await refused(server, data, 400, { body: broken }, query), "upload_aborted");
    // The place of both is free again.
    await server.upload("language");
  }));

Deno.test("more uploads than may be on their way are refused", () =>
  withServer({ limits: { uploads: 1 } }, async (server) => {
    let end = () => {};
    const slow = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new Uint8Array(4));
        end = () => controller.close();
      },
    });
    const first = server.fetch("/api/adapters?name=a.safetensors", { method: "POST", body: slow });
    const init = { method: "POST", body: await formOf(adapterPath("speech")) };
    assertEquals((await errorOf(await server.fetch("/api/adapters", init), 503)).code, "too_many_uploads");
    end();
    assertEquals((await errorOf(await first, 422)).code, "header_too_small");
  }));
