import { assert, assertEquals } from "@std/assert";
import { startServer } from "../server.ts";
import { errorOf, withFolder, withServer } from "../test_support/server.ts";
import { isLoopback } from "./access.ts";

const TOKEN = "a-token-for-tests";

Deno.test("with a token, the API opens to it and to nothing else", () =>
  withServer({ token: TOKEN }, async (server) => {
    const code = async (headers: Record<string, string>) =>
      (await errorOf(await server.fetch("/api/health", { headers }), 401)).code;
    assertEquals(await code({}), "token_missing");
    assertEquals(await code({ authorization: "Bearer wrong" }), "token_wrong");
    assertEquals(await code({ authorization: `Bearer ${TOKEN}x` }), "token_wrong");
    assertEquals(await code({ authorization: `Basic ${btoa(TOKEN)}` }), "token_missing");
    assertEquals(await code({ cookie: `loom_session=${TOKEN}` }), "token_missing");
    const headers = { authorization: `Bearer ${TOKEN}` };
    assertEquals((await server.fetch("/api/health", { headers })).status, 200);
    // The page itself and the document hold no secret.
    for (const path of ["/", "/main.js", "/openapi.json"]) {
      const response = await server.fetch(path);
      assertEquals(response.status, 200);
      await response.body?.cancel();
    }
  }));

Deno.test("every route of the API asks for the token", () =>
  withServer({ token: TOKEN }, async (server) => {
    const { paths } = await server.json<{ paths: Record<string, Record<string, unknown>> }>("/openapi.json");
    for (const [path, operations] of Object.entries(paths)) {
      for (const method of Object.keys(operations)) {
        const response = await server.fetch(path.replaceAll(/\{\w+\}/g, "x"), {
          method: method.toUpperCase(),
        });
        assertEquals((await errorOf(response, 401)).code, "token_missing", `${method} ${path}`);
      }
    }
  }));

Deno.test("POST /session trades the token for a cookie that scripts cannot read", () =>
  withServer({ token: TOKEN }, async (server) => {
    assertEquals((await errorOf(await server.post("/session", { token: "wrong" }), 401)).code, "token_wrong");
    assertEquals((await errorOf(await server.post("/session", null), 401)).code, "token_wrong");
    const response = await server.post("/session", { token: TOKEN });
    const cookie = response.headers.get("set-cookie")!;
    assert(/HttpOnly/.test(cookie) && /SameSite=Strict/.test(cookie) && !cookie.includes(TOKEN));
    const headers = { cookie: `other=1; ${cookie.split(";")[0]}` };
    assertEquals((await server.fetch("/api/health", { headers })).status, 200);
    assertEquals((await server.fetch("/session", { headers })).status, 200);
    await response.body?.cancel();
  }));

Deno.test("other web pages get nothing, with or without a token", async () => {
  for (const token of [undefined, TOKEN]) {
    await withServer(token ? { token } : {}, async (server) => {
      const refuse = async (headers: Record<string, string>) =>
        (await errorOf(await server.fetch("/api/adapters", { method: "POST", headers, body: "x" }), 403))
          .code;
      assertEquals(await refuse({ origin: "https://example.org" }), "cross_origin");
      assertEquals(await refuse({ origin: "null" }), "cross_origin");
      assertEquals(await refuse({ origin: "http://localhost:9999" }), "cross_origin");
      assertEquals(await refuse({ "sec-fetch-site": "cross-site" }), "cross_origin");
    });
  }
});

Deno.test("without a token, a foreign name that leads here gets nothing", () =>
  withServer({}, async (server) => {
    const get = (host: string) => server.fetch("/api/health", { headers: { host } });
    for (
      const host of ["evil.example", "evil.example:8420", "localhost.evil.example", "127.0.0.1.evil.example"]
    ) {
      assertEquals((await errorOf(await get(host), 403)).code, "foreign_host");
    }
    for (const host of ["localhost", "localhost:8420", "127.0.0.1:8420", "[::1]:8420"]) {
      assertEquals((await get(host)).status, 200);
    }
  }));

Deno.test("isLoopback() knows this machine's own addresses", () => {
  assertEquals(["localhost", "127.0.0.1", "::1"].map(isLoopback), [true, true, true]);
  assertEquals(["0.0.0.0", "::", "192.168.1.4", "example.org"].map(isLoopback), [false, false, false, false]);
});

Deno.test("startServer() on any other address makes a token, once, for its user alone", () =>
  withFolder(async (data) => {
    const options = { data, host: "0.0.0.0", port: 0, device: "cpu" } as const;
    const first = await startServer(options);
    assert(first.isNewToken && first.token!.length >= 43);
    assertEquals(Deno.statSync(`${data}/token`).mode! & 0o777, 0o600);
    const url = first.url.replace("0.0.0.0", "127.0.0.1");
    assertEquals((await errorOf(await fetch(`${url}/api/health`), 401)).code, "token_missing");
    await first.stop();
    const second = await startServer(options);
    assertEquals([second.token, second.isNewToken], [first.token, false]);
    await second.stop();
  }));

Deno.test("startServer() asks for no token on this machine's own address, unless told to", () =>
  withFolder(async (data) => {
    const open = await startServer({ data, port: 0, device: "cpu" });
    assertEquals(open.token, undefined);
    const response = await fetch(`${open.url}/api/health`);
    assertEquals(response.status, 200);
    await response.body?.cancel();
    await open.stop();
    const closed = await startServer({ data, port: 0, device: "cpu", requireToken: true });
    assert(closed.token);
    await closed.stop();
  }));
