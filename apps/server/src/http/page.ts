import { createHash } from "node:crypto";
import { extname } from "node:path";

const FOLDER = new URL("../page/", import.meta.url);
const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

interface Asset {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  readonly etag: string;
}

/** The web page's files by path, read once: nothing else can be asked for. */
export async function loadPage(): Promise<ReadonlyMap<string, Asset>> {
  const assets = new Map<string, Asset>();
  for await (const { name, isFile } of Deno.readDir(FOLDER)) {
    const type = TYPES[extname(name)];
    if (!isFile || type === undefined) continue;
    const bytes = await Deno.readFile(new URL(name, FOLDER));
    const etag = `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"`;
    assets.set(name === "index.html" ? "/" : `/${name}`, { bytes, type, etag });
  }
  return assets;
}

/** Sends a file of the page, or says that the browser has it. */
export function assetResponse(request: Request, { bytes, type, etag }: Asset): Response {
  const headers = { "content-type": type, etag, "cache-control": "no-cache" };
  if (request.headers.get("if-none-match") === etag) return new Response(null, { status: 304, headers });
  return new Response(bytes, { headers });
}
