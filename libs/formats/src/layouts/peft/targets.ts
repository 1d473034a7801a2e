import type { Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { compilePattern } from "./module_pattern.ts";

/**
 * Warns where `target_modules` and the tensors disagree: PEFT adapts what the configuration targets, and ignores
 * tensors of other modules.
 */
export function checkTargets(
  targets: readonly string[] | string | undefined,
  modules: Iterable<string>,
  configPath: string,
): Warning[] {
  if (targets === undefined || targets === "all-linear") return [];
  const names = [...modules];
  return typeof targets === "string"
    ? checkPattern(targets, names, configPath)
    : checkList(targets, names, configPath);
}

function checkList(targets: readonly string[], names: readonly string[], configPath: string): Warning[] {
  const isTargeted = (name: string) => targets.some((target) => isTarget(target, name));
  const unused = targets.filter((target) => !names.some((name) => isTarget(target, name)));
  return [
    ...names.filter((name) => !isTargeted(name)).map((name) => notTargeted(name, configPath)),
    ...unused.map((target) => ({
      code: "target_without_tensors",
      message: `target_modules names ${target}, but the file has no tensors for it`,
      where: `${configPath} target_modules`,
    })),
  ];
}

function isTarget(target: string, name: string): boolean {
  return name === target || name.endsWith(`.${target}`);
}

function checkPattern(source: string, names: readonly string[], configPath: string): Warning[] {
  const where = `${configPath} target_modules`;
  try {
    const pattern = compilePattern(source, where);
    return names.filter((name) => !pattern.matches(name)).map((name) => notTargeted(name, configPath));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    // The tensors say which modules there are; the pattern only serves to cross-check them.
    return [{
      code: "pattern_unsupported",
      message: `target_modules was not checked: ${error.message}`,
      where,
    }];
  }
}

function notTargeted(name: string, configPath: string): Warning {
  return {
    code: "module_not_targeted",
    message: `${name} has tensors, but target_modules does not cover it: PEFT would ignore them`,
    where: `${configPath} target_modules`,
  };
}
