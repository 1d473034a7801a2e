/** What only a real socket shows: slow, silent and vanishing clients. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ServerError } from "./errors.ts";
import { type RunningServer, type ServerOptions, startServer } from "./server.ts";
import { type Merger, type MergeTask } from "./work/merger.ts";
import { writeResult } from "./test_support/mergers.ts";
import { adapterPath, errorOf, formOf, withFolder } from "./test_support/server.ts";

async function withListening(
  limits: Record<string, number>,
  body: (server: RunningServer, data: string) => Promise<void>,
  options: Partial<ServerOptions> = {},
): Promise<void> {
  await withFolder(async (folder) => {
    const server = await startServer({ data: `${folder}/data`, port: 0, device: "cpu", limits, ...options });
    try {
      await body(server, `${folder}/data`);
    } finally {
      await server.stop();
    }
  });
}

async function connect(server: RunningServer): Promise<Deno.TcpConn> {
  const { hostname, port } = new URL(server.url);
  return await Deno.connect({ hostname, port: Number(port) });
}

const send = (connection: Deno.TcpConn, text: string) => connection.write(new TextEncoder().encode(text));

/** Everything that a connection gives until it ends. */
async function readToEnd(connection: Deno.TcpConn): Promise<string> {
  try {
    return await new Response(connection.readable).text();
  } catch {
    return "";
  }
}

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function uploaded(server: RunningServer, name: string): Promise<{ readonly id: string }> {
  const body = await formOf(adapterPath(name));
  return await (await fetch(`${server.url}/api/adapters`, { method: "POST", body })).json();
}

/** The id of a merge that was asked for. */
async function started(server: RunningServer, request: unknown): Promise<string> {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(request);
  const response = await fetch(`${server.url}/api/merges`, { method: "POST", headers, body });
  return (await response.json()).id;
}

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name);

Deno.test("clients that say nothing, half of a request, or nothing more are cut off", () =>
  withListening({ idleSeconds: 1 }, async (server) => {
    for (
      const text of [
        "",
        "GET /api/health HTTP/1.1\r\nHost: localhost\r\nA",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
      ]
    ) {
      const connection = await connect(server);
      if (text) await send(connection, text);
      // It ends by itself: were the client to stay, this would never return.
      await readToEnd(connection);
    }
  }));

Deno.test("an upload whose client stands still is answered, one whose client vanishes is forgotten; nothing of either stays", () =>
  withListening({ idleSeconds: 1, uploads: 1 }, async (server, data) => {
    const head =
      "POST /api/adapters?name=a.safetensors HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n0123";
    const still = await connect(server);
    await send(still, head);
    const answer = await readToEnd(still);
    assert(answer.startsWith("HTTP/1.1 408"), answer);
    assert(answer.includes("upload_stalled"), answer);
    const gone = await connect(server);
    await send(gone, head);
    while (names(`${data}/incoming`).length === 0) await pause(5);
    gone.close();
    while (names(`${data}/incoming`).length > 0) await pause(5);
    assertEquals(names(`${data}/adapters`), []);
    // Its place is free again.
    const response = await fetch(`${server.url}/api/adapters`, {
      method: "POST",
      body: await formOf(adapterPath("speech")),
    });
    assertEquals(response.status, 201);
    await response.body?.cancel();
  }));

/** Writes a result with a file that no system buffers whole. */
const HEAVY_BYTES = 64 * 1024 * 1024;
const heavyMerger: Merger = {
  async run({ recipe }: MergeTask) {
    const { path } = recipe.output;
    await writeResult(path);
    await Deno.truncate(`${path}/adapter_model.safetensors`, HEAVY_BYTES);
    return { peak_rss_bytes: null, peak_gpu_bytes: null };
  },
  restart() {},
  close() {},
};

Deno.test("a client that does not take the file or archive it asked for is cut off", () =>
  withListening({ idleSeconds: 0.5 }, async (server) => {
    const { id: adapter } = await uploaded(server, "language");
    const merge = await started(server, { method: "svd", adapters: [{ id: adapter }] });
    while (server.services.merges.get(merge).state !== "done") await pause(5);
    for (const path of ["files/adapter_model.safetensors", "archive.zip"]) {
      const connection = await connect(server);
      await send(connection, `GET /api/merges/${merge}/${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      await pause(4000);
      // What was on its way is there, and then the end: a patient server would give it all.
      let bytes = 0;
      for await (const chunk of connection.readable) bytes += chunk.length;
      assert(bytes > 0 && bytes < HEAVY_BYTES, `${path} gave ${bytes} bytes`);
    }
  }, { mergers: [heavyMerger] }));

Deno.test("header floods, halves of requests and what is no request get a 4xx with a code", () =>
  withListening({ httpHeaderBytes: 2000, idleSeconds: 1 }, async (server) => {
    const start = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    for (
      const [text, status, code] of [
        [`${start}A: ${"x".repeat(100_000)}\r\n\r\n`, 431, "headers_too_large"],
        [`${start}${"a: b\r\n".repeat(1000)}\r\n`, 431, "headers_too_large"],
        [`GET /${"x".repeat(5000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`, 431, "headers_too_large"],
        [`${start}A`, 408, "request_stalled"],
        ["NONSENSE\r\n\r\n", 400, "malformed_request"],
        ["GET / HTTP/9.9\r\n\r\n", 400, "malformed_request"],
      ] as const
    ) {
      const connection = await connect(server);
      await send(connection, text).catch(() => {});
      const answer = await readToEnd(connection);
      const [head = "", body = ""] = answer.split("\r\n\r\n");
      assert(head.startsWith(`HTTP/1.1 ${status} `), `${text.slice(0, 20)}: ${answer.slice(0, 200)}`);
      assertEquals(JSON.parse(body).error.code, code);
    }
    const odd = await fetch(`${server.url}/api/health`, { method: "PROPFIND" });
    assertEquals((await errorOf(odd, 404)).code, "no_such_route");
  }));

Deno.test("more connections than may be open are ended, and closed ones make room", () =>
  withListening({ connections: 2 }, async (server) => {
    const request = "GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    const held = [await connect(server), await connect(server)];
    await pause(100);
    assertEquals(await readToEnd(await connect(server)), "");
    for (const connection of held) {
      await send(connection, request);
      assert((await readToEnd(connection)).startsWith("HTTP/1.1 200"));
    }
    const after = await connect(server);
    await send(after, request);
    assert((await readToEnd(after)).startsWith("HTTP/1.1 200"));
  }));

Deno.test("an event stream whose reader is gone makes room", () =>
  withListening({ streams: 1 }, async (server) => {
    const { id } = await uploaded(server, "language");
    // Not one that runs: two that wait for each other would end.
    const start = () => started(server, { method: "svd", adapters: [{ id }], parameters: { rank: 2 } });
    const merges = [await start(), await start(), await start(), await start()];
    const events = (signal: AbortSignal) =>
      fetch(`${server.url}/api/merges/${merges.at(-1)}/events`, { signal });
    const first = new AbortController();
    assertEquals((await events(first.signal)).status, 200);
    first.abort();
    const status = async () => {
      const controller = new AbortController();
      const response = await events(controller.signal);
      controller.abort();
      return response.status;
    };
    while (await status() === 503) await pause(5);
  }));

Deno.test("startServer() says that a port is taken, and makes nothing", () =>
  withListening({}, async (server) => {
    await withFolder(async (folder) => {
      const port = Number(new URL(server.url).port);
      const error = await assertRejects(
        () => startServer({ data: `${folder}/data`, port, device: "cpu" }),
        ServerError,
      );
      assertEquals([error.code, error.where, error.status], ["port_in_use", "--port", 400]);
      assertStringIncludes(error.message, `port ${port} of 127.0.0.1`);
      // And makes no data folder.
      assertEquals(names(folder), []);
    });
  }));
