import { OUTPUT_FORMATS } from "@lora-loom/formats";
import { ServerError } from "../../errors.ts";
import { parseRequest } from "../../merges/request.ts";
import { archiveResponse } from "../archive.ts";
import { readJson } from "../body.ts";
import { fileResponse } from "../files.ts";
import { json, type Route } from "../route.ts";
import { ref } from "../schemas.ts";

const MAX_PAGE = 200;

const idParameter = {
  name: "id",
  in: "path",
  description: "the merge's id",
  schema: { type: "string" },
} as const;
const mergeBody = { "application/json": { schema: ref("Merge") } };

function pageSize(text: string | null): number {
  const size = text === null ? 50 : Number(text);
  if (Number.isSafeInteger(size) && size >= 1 && size <= MAX_PAGE) return size;
  const message = `limit is a whole number from 1 to ${MAX_PAGE}, found ${JSON.stringify(text)}`;
  throw new ServerError(400, "invalid_limit", message, "leave limit out, or correct it", "limit");
}

export const mergeRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/api/merges",
    id: "listMerges",
    summary: "The merges, the newest first",
    parameters: [
      {
        name: "limit",
        in: "query",
        description: "at most so many",
        schema: { type: "integer", minimum: 1, maximum: MAX_PAGE, default: 50 },
      },
      {
        name: "before",
        in: "query",
        description: "only merges older than the one with this id, to read on",
        schema: { type: "string" },
      },
    ],
    responses: {
      200: {
        description: "merges",
        content: { "application/json": { schema: { type: "array", items: ref("Merge") } } },
      },
    },
    errors: [400, 404],
    handle({ url, services }) {
      const before = url.searchParams.get("before") ?? undefined;
      return json(services.merges.list(pageSize(url.searchParams.get("limit")), before));
    },
  },
  {
    method: "post",
    path: "/api/merges",
    id: "startMerge",
    summary: "Start a merge: it is checked at once, waits in line and then runs",
    body: { "application/json": { schema: ref("MergeRequest") } },
    responses: { 202: { description: "it waits or runs", content: mergeBody } },
    errors: [400, 404, 408, 413, 415, 422, 503, 507],
    async handle({ request, services }) {
      const { limits } = services;
      const value = await readJson(request, limits.requestBytes, limits);
      const wanted = parseRequest(value, limits.adaptersPerMerge);
      await services.checkMerge(wanted);
      const names = wanted.adapters.map(({ id, name }) => name ?? services.adapters.get(id).name);
      const merge = services.merges.add(wanted.name ?? names.join(" + ").slice(0, 200), wanted);
      return json(merge, 202, { location: `/api/merges/${merge.id}` });
    },
  },
  {
    method: "get",
    path: "/api/merges/{id}",
    id: "getMerge",
    summary: "A merge: its state, progress, result or error",
    parameters: [idParameter],
    responses: { 200: { description: "the merge", content: mergeBody } },
    errors: [404],
    handle: ({ params, services }) => json(services.merges.get(params.id!)),
  },
  {
    method: "delete",
    path: "/api/merges/{id}",
    id: "deleteMerge",
    summary: "Cancel a merge that waits or runs; delete one that has ended, with its files",
    parameters: [idParameter],
    responses: {
      202: { description: "it is cancelled, or will be in a moment", content: mergeBody },
      204: { description: "it is gone" },
    },
    errors: [404],
    async handle({ params, services }) {
      const cancelled = await services.merges.cancelOrRemove(params.id!);
      return cancelled ? json(cancelled, 202) : new Response(null, { status: 204 });
    },
  },
  {
    method: "get",
    path: "/api/merges/{id}/events",
    id: "watchMerge",
    summary:
      "Server-sent events: `merge` whenever the state changes, `progress` in between; ends with the merge",
    parameters: [
      idParameter,
      {
        name: "Last-Event-ID",
        in: "header",
        description: "the last event that was seen, to go on after it",
        schema: { type: "string" },
      },
    ],
    responses: {
      200: { description: "events", content: { "text/event-stream": { schema: { type: "string" } } } },
      204: { description: "nothing will come any more" },
    },
    errors: [404, 503],
    handle: ({ request, params, services }) => services.streams.open(params.id!, request, services),
  },
  {
    method: "get",
    path: "/api/merges/{id}/files/{name}",
    id: "getMergedFile",
    summary: "A file of the result",
    parameters: [
      idParameter,
      {
        name: "name",
        in: "path",
        description: "a name from the result's files, such as adapter_model.safetensors",
        schema: { type: "string" },
      },
    ],
    responses: {
      200: {
        description: "the file",
        content: { "application/octet-stream": { schema: { type: "string", format: "binary" } } },
      },
      304: { description: "as the client has it" },
    },
    errors: [404, 409],
    handle: ({ request, params, services }) => fileResponse(request, params.id!, params.name!, services),
  },
  {
    method: "get",
    path: "/api/merges/{id}/archive.zip",
    id: "getArchive",
    summary: "The result's folder as a zip archive",
    parameters: [
      idParameter,
      {
        name: "format",
        in: "query",
        description: "a layout to convert the result to",
        schema: { enum: [...OUTPUT_FORMATS] },
      },
    ],
    responses: {
      200: {
        description: "the archive",
        content: { "application/zip": { schema: { type: "string", format: "binary" } } },
      },
    },
    errors: [400, 404, 409, 422, 503],
    handle: ({ params, url, services }) =>
      archiveResponse(services.merges.get(params.id!), url.searchParams.get("format"), services),
  },
];
