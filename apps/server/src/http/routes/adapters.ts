import { readForm } from "../../adapters/read_form.ts";
import { readZip } from "../../adapters/read_zip.ts";
import type { UploadSink } from "../../adapters/sink.ts";
import { uploadTooLarge } from "../../adapters/incoming.ts";
import type { ReadingOptions } from "../../work/inspection.ts";
import { ServerError } from "../../errors.ts";
import { bodyChunks } from "../body.ts";
import { json, type Route, type RouteInput } from "../route.ts";
import { ref } from "../schemas.ts";

const binary = { schema: { type: "string", format: "binary" } } as const;

/** Names for single files come with an extension, so that a folder and an archive need none. */
const FILE_NAME = /\.(?:safetensors|gguf|npz|bin|pt|pth|ckpt)$/i;

function missingName(): ServerError {
  return new ServerError(
    400,
    "missing_name",
    "a single file needs a name",
    "add ?name=adapter.safetensors, send a zip archive (content-type: application/zip), or a form",
    "name",
  );
}

/** Brings the body's files to the sink; the result is the name that the client gave the adapter. */
async function readUpload(
  { request, url, services }: RouteInput,
  sink: UploadSink,
): Promise<string | undefined> {
  const type = request.headers.get("content-type") ?? "";
  const name = url.searchParams.get("name") ?? undefined;
  const chunks = bodyChunks(request, services.limits);
  if (/^multipart\/form-data\b/i.test(type)) {
    const fields = await readForm(chunks, type, sink);
    return adapterName(name ?? fields.get("name"));
  }
  if (/^application\/(?:x-)?zip\b/i.test(type) || /\.zip$/i.test(name ?? "")) {
    await readZip(chunks, sink);
    return adapterName(name?.replace(/\.zip$/i, ""));
  }
  if (name === undefined || !FILE_NAME.test(name)) throw missingName();
  const file = await sink.begin(name);
  for await (const chunk of chunks) await file?.write(chunk);
  await file?.end();
  return undefined;
}

/** A name for people: one line without a path. */
function adapterName(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  if (/[\p{C}/\\]/u.test(name)) {
    throw new ServerError(
      400,
      "invalid_name",
      "the adapter's name holds a slash or a control character",
      "choose a plain name, such as language",
      "name",
    );
  }
  return name.trim();
}

/** Most names that an upload can agree to lose. */
const MAX_DROPS = 100;

/** How the upload wants to be read: `drop`, which may be repeated, and `expand`. */
function readingOptions({ url }: RouteInput): ReadingOptions {
  const drop = url.searchParams.getAll("drop");
  const expand = url.searchParams.get("expand");
  if (drop.length > MAX_DROPS || drop.some((name) => name === "" || name.length > 300)) {
    throw invalidOption("drop", `holds an empty or long name, or more than ${MAX_DROPS}`);
  }
  if (expand !== null && expand !== "true" && expand !== "false") {
    throw invalidOption("expand", "is neither true nor false");
  }
  return {
    ...(drop.length > 0 ? { drop: [...new Set(drop)].sort() } : {}),
    ...(expand === "true" ? { expand: true } : {}),
  };
}

function invalidOption(name: string, what: string): ServerError {
  return new ServerError(400, "invalid_option", `${name} ${what}`, `correct ${name}, or leave it out`, name);
}

function checkDeclaredLength({ request, services }: RouteInput): void {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > services.limits.uploadBytes) throw uploadTooLarge(services.limits.uploadBytes);
}

const idParameter = {
  name: "id",
  in: "path",
  description: "the adapter's id",
  schema: { type: "string" },
} as const;

export const adapterRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/api/adapters",
    id: "listAdapters",
    summary: "The adapters, the newest first",
    responses: {
      200: {
        description: "all adapters",
        content: { "application/json": { schema: { type: "array", items: ref("Adapter") } } },
      },
    },
    handle: ({ services }) => json(services.adapters.list()),
  },
  {
    method: "post",
    path: "/api/adapters",
    id: "uploadAdapter",
    summary: "Upload an adapter: the files of a PEFT folder as a form, a zip of them, or a single file",
    parameters: [{
      name: "name",
      in: "query",
      description: "how to call it; for a single file its file name",
      schema: { type: "string" },
    }, {
      name: "drop",
      in: "query",
      description: "kinds such as dora, modules or tensors whose loss is accepted; may be repeated",
      schema: { type: "array", items: { type: "string" } },
    }, {
      name: "expand",
      in: "query",
      description: "expand LoHa and LoKr into plain factors",
      schema: { type: "boolean", default: false },
    }],
    body: {
      "multipart/form-data": {
        schema: {
          type: "object",
          properties: { name: { type: "string" }, file: { type: "array", items: binary.schema } },
        },
      },
      "application/zip": binary,
      "application/octet-stream": binary,
    },
    responses: {
      200: { description: "it was here before", content: { "application/json": { schema: ref("Adapter") } } },
      201: { description: "it is kept", content: { "application/json": { schema: ref("Adapter") } } },
    },
    errors: [400, 408, 413, 422, 503, 507],
    async handle(input) {
      checkDeclaredLength(input);
      const { adapter, isNew } = await input.services.adapters.receive(
        (sink) => readUpload(input, sink),
        readingOptions(input),
      );
      return json(adapter, isNew ? 201 : 200, { location: `/api/adapters/${adapter.id}` });
    },
  },
  {
    method: "get",
    path: "/api/adapters/{id}",
    id: "getAdapter",
    summary: "An adapter with its norms, spectra and problems",
    parameters: [idParameter],
    responses: {
      200: { description: "the adapter", content: { "application/json": { schema: ref("AdapterDetail") } } },
    },
    errors: [404],
    handle: ({ params, services }) => json(services.adapters.get(params.id!)),
  },
  {
    method: "delete",
    path: "/api/adapters/{id}",
    id: "deleteAdapter",
    summary: "Delete an adapter that no merge still needs",
    parameters: [idParameter],
    responses: { 204: { description: "it is gone" } },
    errors: [404, 409],
    async handle({ params, services }) {
      await services.adapters.remove(params.id!);
      return new Response(null, { status: 204 });
    },
  },
];
