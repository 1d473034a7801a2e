import { existsSync, realpathSync } from "node:fs";
import { dirname, relative, resolve, sep } from "node:path";
import { FormatError } from "../errors.ts";

/** What an output must leave as it is, with `force` too. */
export interface Guarded {
  /** Files and folders that are read: the output may neither be nor contain one. */
  readonly inputs: readonly string[];
  /** Folders of base models: besides, the output may not lie inside one. */
  readonly models?: readonly string[];
}

/**
 * Refuses an output that would replace something that is read, or that would change a base model's folder. Links on the
 * way are followed.
 *
 * @throws {FormatError} `output_is_input`
 */
export function refuseInputs(output: string, { inputs, models = [] }: Guarded): void {
  const target = physicalPath(output);
  for (const input of [...inputs, ...models]) {
    if (isInside(physicalPath(input), target)) {
      throw outputIsInput(output, `is or contains the input ${input}, which would be lost`);
    }
  }
  for (const model of models) {
    if (isInside(target, physicalPath(model))) {
      throw outputIsInput(output, `lies inside the base model's folder ${model}, which is only read`);
    }
  }
}

function outputIsInput(output: string, found: string): FormatError {
  return new FormatError(
    "output_is_input",
    `the output ${output} ${found}`,
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
