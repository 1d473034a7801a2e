import manifest from "../../../deno.json" with { type: "json" };
import { describeFailure } from "../../errors.ts";
import { json, type Route } from "../route.ts";
import { ref } from "../schemas.ts";

export const healthRoutes: readonly Route[] = [{
  method: "get",
  path: "/api/health",
  id: "health",
  summary: "Whether the server works, on which device, and how much it has to do",
  responses: { 200: { description: "it works", content: { "application/json": { schema: ref("Health") } } } },
  handle({ services }) {
    const { device, error } = services.device();
    return json({
      status: "ok",
      version: manifest.version,
      device,
      device_error: error && describeFailure(Object.assign(new Error(), error), services.hide).error,
      merges: services.merges.counts,
      limits: services.limits,
    });
  },
}];
