import { type House, isTestFile } from "./arrows.ts";
import type { Import } from "./imports.ts";
import { memberOf } from "./workspace.ts";

/** Something in the imports that the house does not allow. */
export interface Violation {
  readonly rule:
    | "unknown_room"
    | "forbidden_arrow"
    | "relative_escape"
    | "tests_only"
    | "owned_package"
    | "cycle";
  /** Where, as `file:line`. */
  readonly where: string;
  /** What was found, and what to do instead. */
  readonly message: string;
}

/** Everything in `imports` that breaks a rule of the house; empty when all is well. */
export function findViolations(imports: readonly Import[], house: House): Violation[] {
  return [
    ...imports.flatMap((one) => checkImport(one, house)),
    ...findCycles(imports).map(describeCycle),
  ];
}

function checkImport(one: Import, house: House): Violation[] {
  const where = `${one.file}:${one.line}`;
  const room = memberOf(one.file, house.rooms);
  if (!room) {
    const message = `${one.file} is in no room of the house; add its member to tools/house/arrows.ts`;
    return [{ rule: "unknown_room", where, message }];
  }
  const isTest = isTestFile(one.file);
  const found: Violation[] = [];
  const report = (rule: Violation["rule"], message: string) => found.push({ rule, where, message });
  if (one.package !== undefined) {
    const owners = house.ownedPackages[one.package];
    if (owners && !owners.includes(room.path)) {
      report("owned_package", `only ${owners.join(" and ")} may import "${one.package}"`);
    }
    if (!isTest && house.testOnlyPackages.includes(one.package)) {
      report("tests_only", `only tests may import "${one.package}"`);
    }
  }
  const target = one.target === undefined ? undefined : memberOf(one.target, house.rooms);
  if (/^(?:\.|\/|file:)/.test(one.specifier) && target !== room) {
    report(
      "relative_escape",
      `"${one.specifier}" leaves ${room.path}; import the other member by its name`,
    );
  }
  if (target === undefined) return found;
  if (!isTest && !target.testsOnly && isTestFile(one.target!)) {
    report("tests_only", `only tests may import ${one.target}`);
  }
  if (target === room) return found;
  if (isTest && house.testsMayImport.includes(target.path)) return found;
  if (target.testsOnly) report("tests_only", `only tests may import ${target.path} ("${one.specifier}")`);
  else if (room.mayImport !== "*" && !room.mayImport.includes(target.path)) {
    const allowed = room.mayImport.length > 0 ? room.mayImport.join(", ") : "no other member";
    report("forbidden_arrow", `${room.path} must not import ${target.path}; it may import ${allowed}`);
  }
  return found;
}

/**
 * Groups of files that import each other in a circle when they load. Type-only and dynamic imports do not count.
 * Strongly connected components after Tarjan, "Depth-first search and linear graph algorithms" (1972).
 */
export function findCycles(imports: readonly Import[]): string[][] {
  const next = new Map<string, string[]>();
  for (const { file, target, lazy } of imports) {
    if (!lazy && target !== undefined) next.set(file, [...(next.get(file) ?? []), target]);
  }
  const order = new Map<string, number>();
  const lowest = new Map<string, number>();
  const stack: string[] = [];
  const open = new Set<string>();
  const cycles: string[][] = [];
  const visit = (file: string) => {
    order.set(file, order.size);
    lowest.set(file, order.get(file)!);
    stack.push(file);
    open.add(file);
    for (const target of next.get(file) ?? []) {
      if (!order.has(target)) visit(target);
      if (open.has(target)) lowest.set(file, Math.min(lowest.get(file)!, lowest.get(target)!));
    }
    if (lowest.get(file) !== order.get(file)) return;
    const group = stack.splice(stack.indexOf(file));
    for (const member of group) open.delete(member);
    if (group.length > 1 || next.get(file)?.includes(file)) cycles.push(group.sort());
  };
  for (const file of next.keys()) if (!order.has(file)) visit(file);
  return cycles;
}

function describeCycle(files: readonly string[]): Violation {
  return {
    rule: "cycle",
    where: files[0]!,
    message:
      `these files import each other in a circle: ${files.join(", ")}; move what they share into one of ` +
      "its own, or import types with `import type`",
  };
}
