import { promises as fs } from "node:fs";
import { FormatError } from "./errors.ts";
import { fileError, systemCode } from "./io/system_errors.ts";
import { chooseLayout } from "./layouts/choose.ts";
import { LAYOUTS } from "./layouts/registry.ts";
import { openSource } from "./layouts/source.ts";
import { listNames } from "./safetensors/sharded.ts";

/** What tells a folder that a merge or a conversion wrote: its record, its configuration or its weight file. */
const SIGNS: ReadonlySet<string> = new Set([
  "loom.json",
  "adapter_config.json",
  ...LAYOUTS.flatMap(({ writing }) => writing ? [writing.weightFile] : []),
]);

/** Names of a folder's content that a message shows. */
const SHOWN = 3;

/**
 * Refuses to replace what is no earlier result. Replaced may be a folder that holds `loom.json` or an adapter, an empty
 * folder and, where a single file is written, an adapter's file; where nothing exists there is nothing to refuse.
 *
 * @param path absolute
 * @param wanted what is going to be written there
 * @throws {FormatError} `not_a_result`
 */
export async function refuseForeign(path: string, wanted: "folder" | "file"): Promise<void> {
  const status = await fs.stat(path).catch((error) => {
    if (systemCode(error) === "ENOENT") return undefined;
    throw fileError(error, "look at", path);
  });
  if (!status) return;
  if (status.isDirectory()) return await refuseForeignFolder(path);
  if (wanted === "file" && status.isFile() && await isAdapterFile(path)) return;
  const found = status.isFile() ? "a file" : "neither a file nor a folder";
  const only = wanted === "file" ? "an adapter's file" : "a folder with an earlier result";
  throw notAResult(path, `is ${found}, and --force replaces only ${only}`);
}

async function refuseForeignFolder(path: string): Promise<void> {
  const names = await listNames(path);
  if (names.length === 0 || names.some((name) => SIGNS.has(name))) return;
  const shown = names.slice(0, SHOWN).map((name) => JSON.stringify(name)).join(", ");
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : "";
  throw notAResult(
    path,
    `holds ${shown}${more} but neither loom.json nor an adapter, and --force replaces only an earlier result`,
  );
}

async function isAdapterFile(path: string): Promise<boolean> {
  try {
    const source = await openSource(path, []);
    using _weights = source.weights;
    // Models come as GGUF files too, and a file of this container has no other sign.
    if (source.values) return source.values.get("general.type") === "adapter";
    chooseLayout(source, LAYOUTS);
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

function notAResult(path: string, found: string): FormatError {
  return new FormatError("not_a_result", `${path} ${found}`, "Give another output.", path);
}
