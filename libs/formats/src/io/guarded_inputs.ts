import { existsSync, realpathSync } from "node:fs";
import { dirname, relative, resolve, sep } from "node:path";
import { FormatError } from "../errors.ts";

/**
 * Refuses an output that is or contains one of the files and folders that are read, and would replace it, with `force` too. Links on the
 * way are followed.
 *
 * @throws {FormatError} `output_is_input`
 */
export function refuseInputs(output: string, inputs: readonly string[]): void {
  const target = physicalPath(output);
  const replaced = inputs.find((input) => isInside(physicalPath(input), target));
  if (replaced === undefined) return;
  throw new FormatError(
    "output_is_input",
    `the output ${output} is or contains the input ${replaced}, which would be lost`,
    "Name another folder for the output.",
    output,
  );
}

/** The path with every link on the way resolved, as far as it exists. */
function physicalPath(path: string): string {
  const absolute = resolve(path);
  if (existsSync(absolute)) return realpathSync(absolute);
  const parent = dirname(absolute);
  return parent === absolute ? absolute : resolve(physicalPath(parent), relative(parent, absolute));
}

function isInside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}
