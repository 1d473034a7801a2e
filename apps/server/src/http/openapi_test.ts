import { assert, assertEquals } from "@std/assert";
import { METHODS } from "@lora-loom/merge";
import { Access } from "./access.ts";
import { createApp, ROUTES } from "./app.ts";
import { openApiDocument } from "./openapi.ts";
import { SCHEMAS } from "./schemas.ts";
import { withServer } from "../test_support/server.ts";

const OUTSIDE = new Set(["/openapi.json", "/session"]);

Deno.test("the OpenAPI document names exactly the routes that the app answers", () =>
  withServer({}, async ({ services }) => {
    const app = await createApp(services, new Access(undefined));
    const answered = app.routes
      .filter(({ method, path }) => method !== "ALL" && (path.startsWith("/api/") || OUTSIDE.has(path)))
      .filter(({ path }) => !OUTSIDE.has(path))
      .map(({ method, path }) => `${method.toLowerCase()} ${path.replaceAll(/:(\w+)/g, "{$1}")}`);
    const announced = Object.entries(openApiDocument(ROUTES).paths)
      .flatMap(([path, operations]) => Object.keys(operations).map((method) => `${method} ${path}`));
    assertEquals(announced.sort(), answered.sort());
  }));

Deno.test("the OpenAPI document is complete: parameters, references, ids", () => {
  const document = openApiDocument(ROUTES);
  const text = JSON.stringify(document);
  for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) assert(name! in SCHEMAS, name);
  const ids = ROUTES.map(({ id }) => id);
  assertEquals(new Set(ids).size, ids.length);
  for (const { path, parameters = [] } of ROUTES) {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    assertEquals(parameters.filter((one) => one.in === "path").map(({ name }) => name), inPath, path);
  }
});

Deno.test("GET /openapi.json and GET /api/methods describe every method and parameter", () =>
  withServer({}, async (server) => {
    const document = await server.json<{ openapi: string; paths: object }>("/openapi.json");
    assertEquals(document.openapi, "3.1.0");
    const methods = await server.json<{ name: string; parameters: { name: string; range: string }[] }[]>(
      "/api/methods",
    );
    assertEquals(methods.map(({ name }) => name), [...METHODS.keys()]);
    for (const { name, parameters } of methods) {
      assertEquals(parameters.map((one) => one.name), METHODS.get(name)!.parameters.map((one) => one.name));
      assert(parameters.every(({ range }) => range.length > 0));
    }
  }));

Deno.test("GET /api/health tells limits and how much there is to do", () =>
  withServer({ limits: { queue: 7 } }, async (server) => {
    const health = await server.json<{ merges: object; limits: { queue: number } }>("/api/health");
    assertEquals(health.merges, { running: 0, queued: 0 });
    assertEquals(health.limits.queue, 7);
  }));
