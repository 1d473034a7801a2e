import process from "node:process";
import manifest from "../deno.json" with { type: "json" };

/** Versions of everything that can change a result, for `loom.json`. */
export const VERSIONS: Readonly<Record<string, string>> = {
  "lora-loom": manifest.version,
  ...(process.versions.deno ? { deno: process.versions.deno } : { node: process.versions.node }),
  v8: process.versions.v8,
};
