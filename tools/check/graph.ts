import { join } from "node:path";
import { memberEdges } from "../house/edges.ts";
import { readMembers } from "../house/workspace.ts";
import { runDeno, type StepResult } from "./step.ts";

interface NxGraph {
  graph: { dependencies: Record<string, { source: string; target: string; type: string }[]> };
}

/** Checks that Nx knows every member and sees exactly the imports between them. */
export async function checkGraph(root: string): Promise<StepResult> {
  const folder = await Deno.makeTempDir({ prefix: "lora-loom-graph-" });
  try {
    const file = join(folder, "graph.json");
    const made = await runDeno("run", "-A", "node_modules/.bin/nx", "graph", `--file=${file}`);
    if (!made.ok) return made;
    const { graph } = JSON.parse(await Deno.readTextFile(file)) as NxGraph;
    const members = readMembers(root);
    const nameOf = new Map(members.map(({ path, name }) => [path, name]));
    const expected = new Set(
      (await memberEdges(root)).map(({ source, target }) => `${nameOf.get(source)} → ${nameOf.get(target)}`),
    );
    const seen = new Set(
      Object.values(graph.dependencies).flat().filter(({ type }) => type !== "implicit")
        .map(({ source, target }) => `${source} → ${target}`),
    );
    const lines = [
      ...members.filter(({ name }) => !(name in graph.dependencies)).map(({ name }) =>
        `Nx does not know ${name}`
      ),
      ...[...expected].filter((edge) => !seen.has(edge)).map((edge) => `Nx does not see ${edge}`),
      ...[...seen].filter((edge) => !expected.has(edge)).map((edge) =>
        `Nx sees ${edge}, which nothing imports`
      ),
    ];
    return { ok: lines.length === 0, output: lines.join("\n") };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
