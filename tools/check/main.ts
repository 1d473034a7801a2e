/**
 * Everything that can be checked without running the tests: `deno task check [STEP]...`.
 *
 * Prints a line per step, and after it what failed; exit status 1 when anything did.
 */
import { join } from "node:path";
import { PAGE, renewFile } from "../figures/page.ts";
import { checkBoundaries } from "../boundaries.ts";
import { HOUSE } from "../house/arrows.ts";
import { drawHouse, DRAWING } from "../house/drawing.ts";
import { readMembers, ROOT } from "../house/workspace.ts";
import { findMissing, type LockFile } from "../packages/lock.ts";
import { findBrokenLinks, findUndocumented, listDocuments, withExamples } from "./documents.ts";
import { checkGraph } from "./graph.ts";
import { compareScripts } from "./scripts.ts";
import { complaints, runDeno, type Step, type StepResult } from "./step.ts";

const memberFolders = () => readMembers(ROOT).map(({ path }) => path);

async function checkDrawing(): Promise<StepResult> {
  const isCurrent = await Deno.readTextFile(join(ROOT, DRAWING)) === drawHouse(HOUSE);
  return complaints(isCurrent ? [] : [`${DRAWING} is stale; type: deno run -A tools/house/draw.ts`]);
}

async function checkFigures(): Promise<StepResult> {
  const { before, after } = await renewFile(join(ROOT, PAGE));
  const isCurrent = before === after;
  return complaints(
    isCurrent ? [] : [`${PAGE} and docs/benchmarks disagree; type: deno run -A tools/figures/renew.ts`],
  );
}

async function runExamples(): Promise<StepResult> {
  const documents = await withExamples(ROOT, listDocuments());
  return documents.length > 0
    ? await runDeno("test", "-A", "--doc", "--parallel", ...documents)
    : complaints([]);
}

async function checkArrows(): Promise<StepResult> {
  const violations = await checkBoundaries(ROOT);
  return complaints(violations.map(({ where, rule, message }) => `${where}: ${rule}: ${message}`));
}

async function checkLock(): Promise<StepResult> {
  const lock = JSON.parse(await Deno.readTextFile(join(ROOT, "package-lock.json"))) as LockFile;
  return complaints(
    findMissing(lock).map(({ name, parent }) =>
      `package-lock.json leaves out ${name}, which ${parent} names; type: deno run -A tools/packages/complete_lock.ts`
    ),
  );
}

const STEPS: readonly Step[] = [
  { name: "types", run: () => runDeno("check", "--doc", ...memberFolders()) },
  { name: "format", run: () => runDeno("fmt", "--check") },
  { name: "lint", run: () => runDeno("lint") },
  { name: "arrows", run: checkArrows },
  { name: "picture", run: checkDrawing },
  { name: "figures", run: checkFigures },
  { name: "lock", run: checkLock },
  { name: "scripts", run: async () => complaints(await compareScripts(ROOT)) },
  { name: "readmes", run: async () => complaints(await findUndocumented(ROOT, memberFolders())) },
  { name: "links", run: async () => complaints(await findBrokenLinks(ROOT, listDocuments())) },
  { name: "graph", run: () => checkGraph(ROOT) },
  { name: "examples", run: runExamples },
];

/** Runs steps, `width` at a time in their order, and reports each as it ends. Gives the names of those that failed. */
async function runSteps(steps: readonly Step[], width: number): Promise<string[]> {
  const failed: string[] = [];
  const waiting = [...steps];
  const work = async () => {
    for (let step = waiting.shift(); step; step = waiting.shift()) {
      const start = performance.now();
      const { ok, output } = await step.run();
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(`${ok ? "ok    " : "FAILED"}  ${step.name.padEnd(8)}  ${seconds} s`);
      if (ok) continue;
      failed.push(step.name);
      console.log(`${output}\n`);
    }
  };
  await Promise.all(Array.from({ length: width }, work));
  return failed;
}

if (import.meta.main) {
  const unknown = Deno.args.filter((name) => !STEPS.some((step) => step.name === name));
  if (unknown.length > 0) {
    console.error(
      `there is no step ${unknown.join(", ")}; there are ${STEPS.map(({ name }) => name).join(", ")}`,
    );
    Deno.exit(2);
  }
  const wanted = STEPS.filter(({ name }) => Deno.args.length === 0 || Deno.args.includes(name));
  const failed = await runSteps(wanted, 2);
  console.log(failed.length === 0 ? "all checks passed" : `failed: ${failed.join(", ")}`);
  Deno.exit(failed.length === 0 ? 0 : 1);
}
