import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { AdapterSpec, AdapterWriter } from "./adapter.ts";
import { FormatError } from "./errors.ts";
import type { LayoutWriting } from "./layouts/layout.ts";
import { LAYOUTS } from "./layouts/registry.ts";

/** The layouts that can be written, by their ids. */
export const OUTPUT_FORMATS = ["peft", "kohya", "diffusers", "mlx", "gguf", "original"] as const;
export type OutputFormat = typeof OUTPUT_FORMATS[number];

/**
 * Creates an adapter in any layout that can be written.
 *
 * @param target a folder that exists, or, for a layout of one file, the file to create
 * @throws {FormatError} `needs_folder`, and what the layout's own writer throws
 */
export async function createAdapterWriter(
  format: OutputFormat,
  target: string,
  spec: AdapterSpec,
): Promise<AdapterWriter> {
  const writing = writingOf(format);
  if (await isFolder(target)) return await writing.create(join(target, writing.weightFile), spec);
  if (writing.isSingleFile) return await writing.create(target, spec);
  throw needsFolder(format, target);
}

/** Whether a layout is one file, so that it can be written to a path that is no folder. */
export function isSingleFile(format: OutputFormat): boolean {
  return writingOf(format).isSingleFile;
}

/** The error of a layout of several files whose target is one. */
export function needsFolder(format: OutputFormat, target: string): FormatError {
  return new FormatError(
    "needs_folder",
    `${target} is no folder, and an adapter in the layout ${format} is more than one file`,
    "Name a folder.",
    target,
  );
}

function writingOf(format: OutputFormat): LayoutWriting {
  return LAYOUTS.find(({ id }) => id === format)!.writing!;
}

async function isFolder(path: string): Promise<boolean> {
  return await fs.stat(path).then((status) => status.isDirectory(), () => false);
}
