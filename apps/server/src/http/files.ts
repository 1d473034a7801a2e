import { extname, join } from "node:path";
import { ServerError } from "../errors.ts";
import type { MergeResource, MergeResult } from "../merges/merge.ts";
import type { Services } from "./context.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json",
  ".md": "text/markdown; charset=utf-8",
};

/**
 * The report is a page of its own without scripts: it may style itself and nothing else. Its origin is the page's, which
 * measures how high it is.
 */
const REPORT_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox allow-same-origin";

/**
 * The result of a merge that is done.
 *
 * @throws {ServerError} `not_done`
 */
export function resultOf(merge: MergeResource): MergeResult {
  if (merge.result) return merge.result;
  throw new ServerError(
    409,
    "not_done",
    `the merge is ${merge.state}, it has no files`,
    `watch it with GET /api/merges/${merge.id}/events`,
    merge.id,
  );
}

/** Sends one file of a result. Only names that the result lists are ever looked up on the disk. */
export async function fileResponse(
  request: Request,
  id: string,
  name: string,
  services: Services,
): Promise<Response> {
  const merge = services.merges.get(id);
  const { files } = resultOf(merge);
  const file = files.find((one) => one.name === name);
  if (!file) {
    throw new ServerError(
      404,
      "not_found",
      "the result has no file of this name",
      `it has ${files.map((one) => one.name).join(", ")}`,
      "name",
    );
  }
  const etag = `"${file.sha256}"`;
  if (request.headers.get("if-none-match") === etag) {
    return new Response(null, { status: 304, headers: { etag } });
  }
  const extension = extname(name);
  const headers = new Headers({
    "content-type": TYPES[extension] ?? "application/octet-stream",
    "content-length": String(file.bytes),
    etag,
  });
  if (extension === ".html") {
    headers.set("content-security-policy", REPORT_POLICY);
    headers.set("x-frame-options", "SAMEORIGIN");
  } else headers.set("content-disposition", `attachment; filename="${name}"`);
  const content = await Deno.open(join(services.results.target(id), name));
  return new Response(content.readable, { headers });
}
