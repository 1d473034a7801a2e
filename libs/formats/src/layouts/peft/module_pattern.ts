import { FormatError } from "../../errors.ts";
import { PatternError } from "../../pattern/pattern_node.ts";
import { PythonPattern } from "../../pattern/python_pattern.ts";

/** A key K of `rank_pattern` or `alpha_pattern`: PEFT matches module names against the regex `(.*\.)?(K)$`. */
export class ModulePattern {
  readonly #pattern: PythonPattern;

  /** @throws {FormatError} `pattern_unsupported` */
  constructor(key: string, where: string) {
    this.#pattern = compilePattern(`(.*\\.)?(${key})`, where);
  }

  matches(module: string): boolean {
    return this.#pattern.matches(module);
  }
}

/** @throws {FormatError} `pattern_unsupported` */
export function compilePattern(source: string, where: string): PythonPattern {
  try {
    return new PythonPattern(source);
  } catch (error) {
    if (!(error instanceof PatternError)) throw error;
    throw new FormatError(
      "pattern_unsupported",
      `${error.message}, which is not understood`,
      "Replace it in the configuration by simpler patterns or by full module names.",
      where,
    );
  }
}
