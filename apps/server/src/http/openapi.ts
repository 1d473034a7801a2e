import manifest from "../../deno.json" with { type: "json" };
import { ref, SCHEMAS } from "./schemas.ts";
import type { Route } from "./route.ts";

/** Errors that every route can give. */
const COMMON_ERRORS = [401, 403, 500];

const REASONS: Readonly<Record<number, string>> = {
  400: "the request is malformed",
  401: "a token is needed",
  403: "the request comes from somewhere else",
  404: "there is no such thing",
  408: "the client stood still for too long",
  409: "something else still needs it",
  413: "too large",
  415: "a media type that is not taken",
  422: "understood, but it cannot be done",
  500: "the server failed",
  503: "too much at once",
  507: "no room left",
};

function operation(route: Route) {
  const { id, summary, parameters, body, responses, errors = [] } = route;
  const failures = [...new Set([...errors, ...COMMON_ERRORS])].sort((x, y) => x - y).map((status) => [
    status,
    { description: REASONS[status], content: { "application/json": { schema: ref("Error") } } },
  ]);
  return {
    operationId: id,
    summary,
    ...(parameters ? { parameters: parameters.map((one) => ({ required: one.in === "path", ...one })) } : {}),
    ...(body ? { requestBody: { required: true, content: body } } : {}),
    responses: { ...responses, ...Object.fromEntries(failures) },
  };
}

/** The OpenAPI 3.1 document of these routes. */
export function openApiDocument(routes: readonly Route[]) {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) (paths[route.path] ??= {})[route.method] = operation(route);
  return {
    openapi: "3.1.0",
    info: {
      title: "LoRA Loom",
      version: manifest.version,
      description: "Merges LoRA adapters. Errors always have the form {error: {code, message, fix, where}}.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    security: [{}, { token: [] }],
    paths,
    components: {
      schemas: SCHEMAS,
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
    },
  };
}
