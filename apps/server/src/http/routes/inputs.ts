import { ServerError } from "../../errors.ts";
import { bodyChunks, readAll } from "../body.ts";
import { json, type Route } from "../route.ts";
import { ref } from "../schemas.ts";

/** Calibration texts and base models: what calibrated methods need besides adapters. */
export const inputRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/api/calibrations",
    id: "listCalibrations",
    summary: "The calibration texts, the newest first",
    responses: {
      200: {
        description: "all calibration texts",
        content: { "application/json": { schema: { type: "array", items: ref("Calibration") } } },
      },
    },
    handle: ({ services }) => json(services.calibrations.list()),
  },
  {
    method: "post",
    path: "/api/calibrations",
    id: "uploadCalibration",
    summary: 'Upload calibration text: JSON Lines with {"prompt": …} or {"text": …} a row',
    parameters: [{
      name: "name",
      in: "query",
      description: "how to call it",
      schema: { type: "string", default: "calibration.jsonl" },
    }],
    body: {
      "application/jsonl": { schema: { type: "string" } },
      "text/plain": { schema: { type: "string" } },
    },
    responses: {
      200: {
        description: "it was here before",
        content: { "application/json": { schema: ref("Calibration") } },
      },
      201: { description: "it is kept", content: { "application/json": { schema: ref("Calibration") } } },
    },
    errors: [400, 408, 413, 422, 507],
    async handle({ request, url, services }) {
      const name = url.searchParams.get("name") ?? "calibration.jsonl";
      if (name === "" || name.length > 120 || /[\p{C}/\\]/u.test(name)) {
        const message = "the name is empty, too long, or holds a slash or a control character";
        throw new ServerError(
          400,
          "invalid_name",
          message,
          "choose a plain name, such as prompts.jsonl",
          "name",
        );
      }
      const bytes = await readAll(bodyChunks(request, services.limits), services.limits.calibrationBytes);
      const { calibration, isNew } = await services.calibrations.add(name, bytes);
      return json(calibration, isNew ? 201 : 200);
    },
  },
  {
    method: "delete",
    path: "/api/calibrations/{id}",
    id: "deleteCalibration",
    summary: "Delete a calibration text that no merge still needs",
    parameters: [{ name: "id", in: "path", description: "the text's id", schema: { type: "string" } }],
    responses: { 204: { description: "it is gone" } },
    errors: [404, 409],
    async handle({ params, services }) {
      await services.calibrations.remove(params.id!);
      return new Response(null, { status: 204 });
    },
  },
  {
    method: "get",
    path: "/api/models",
    id: "listModels",
    summary: "The base models that the server offers",
    responses: {
      200: {
        description: "all models",
        content: { "application/json": { schema: { type: "array", items: ref("Model") } } },
      },
    },
    handle: async ({ services }) => json(await services.models.list()),
  },
];
