import { type Context, Hono } from "hono";
import { describeFailure, ServerError } from "../errors.ts";
import { Access } from "./access.ts";
import { readJson } from "./body.ts";
import type { Services } from "./context.ts";
import { openApiDocument } from "./openapi.ts";
import { assetResponse, loadPage } from "./page.ts";
import { json, type Route } from "./route.ts";
import { adapterRoutes } from "./routes/adapters.ts";
import { healthRoutes } from "./routes/health.ts";
import { inputRoutes } from "./routes/inputs.ts";
import { mergeRoutes } from "./routes/merges.ts";
import { methodRoutes } from "./routes/methods.ts";

/** Every route of the API. */
export const ROUTES: readonly Route[] = [
  ...healthRoutes,
  ...methodRoutes,
  ...adapterRoutes,
  ...inputRoutes,
  ...mergeRoutes,
];

/** Headers of every response; one that a handler sets itself stays. */
const HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "permissions-policy": "camera=(), microphone=(), geolocation=()",
  "cache-control": "no-store",
};

function withHeaders(response: Response): Response {
  for (const [name, value] of Object.entries(HEADERS)) {
    if (!response.headers.has(name)) response.headers.set(name, value);
  }
  return response;
}

/** What a client sees of a failure; the log gets the rest. */
function failureResponse(error: unknown, request: Request, services: Services): Response {
  const { status, error: shown } = describeFailure(error, services.hide);
  if (status === 500) console.error(`${request.method} ${new URL(request.url).pathname}:`, error);
  const retry: Record<string, string> = status === 503 ? { "retry-after": "5" } : {};
  return json({ error: shown }, status, retry);
}

function notThere(context: Context): ServerError {
  const path = context.req.path.slice(0, 200);
  return new ServerError(
    404,
    "no_such_route",
    `there is nothing at ${context.req.method} ${path}`,
    "see GET /openapi.json",
    path,
  );
}

/** The server's answer to every request, without a socket: `app.fetch(request)`. */
export async function createApp(services: Services, access: Access): Promise<Hono> {
  const app = new Hono();
  const page = await loadPage();
  app.use(async (context, next) => {
    access.checkOrigin(context.req.raw);
    await next();
    context.res = withHeaders(new Response(context.res.body, context.res));
  });
  app.onError((error, context) => withHeaders(failureResponse(error, context.req.raw, services)));
  app.notFound((context) => withHeaders(failureResponse(notThere(context), context.req.raw, services)));
  for (const [path, asset] of page) app.get(path, (context) => assetResponse(context.req.raw, asset));
  app.get("/openapi.json", () => json(openApiDocument(ROUTES)));
  app.get("/session", (context) => {
    if (access.needsToken) access.checkToken(context.req.raw);
    return json({ needs_token: access.needsToken });
  });
  app.post("/session", async (context) => {
    const { limits } = services;
    const body = await readJson(context.req.raw, limits.requestBytes, limits) as { token?: unknown } | null;
    return json({ needs_token: access.needsToken }, 200, { "set-cookie": access.openSession(body?.token) });
  });
  for (const route of ROUTES) {
    app.on(route.method.toUpperCase(), route.path.replaceAll(/\{(\w+)\}/g, ":$1"), (context) => {
      access.checkToken(context.req.raw);
      const { raw } = context.req;
      return route.handle({ request: raw, url: new URL(raw.url), params: context.req.param(), services });
    });
  }
  return app;
}
