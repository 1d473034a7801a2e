// Nx knows this workspace from its `deno.json` files alone: each member that the root lists is a project, and the edges
// are the imports that Deno itself resolves, import map and type-only imports included.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const name = "nx-deno";

const NOT_OURS = new Set(["node_modules", "fixtures", ".nx", ".cache"]);

/** @param {string} path */
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/** @param {string} folder */
function hasTests(folder) {
  return readdirSync(folder, { withFileTypes: true }).some((entry) =>
    entry.isDirectory()
      ? !NOT_OURS.has(entry.name) && hasTests(join(folder, entry.name))
      : /_test\.[mc]?[jt]sx?$/.test(entry.name)
  );
}

/** @param {string} command */
const runCommand = (command) => ({
  executor: "nx:run-commands",
  cache: true,
  options: { command, cwd: "{workspaceRoot}" },
});

/**
 * @param {string} root the member's folder
 * @param {boolean} tested
 */
const targetsOf = (root, tested) => ({
  ...(tested ? { test: runCommand(`deno run -A tools/test/main.ts ${root}`) } : {}),
  check: runCommand(`deno check ${root}`),
  lint: runCommand(`deno lint ${root}`),
  fmt: runCommand(`deno fmt --check ${root}`),
});

export const createNodes = ["**/deno.json", (files, _options, { workspaceRoot }) => {
  const { workspace } = readJson(join(workspaceRoot, "deno.json"));
  const members = new Set(workspace.map((path) => path.replace(/^\.\//, "").replace(/\/$/, "")));
  return files.filter((file) => members.has(dirname(file))).map((file) => {
    const root = dirname(file);
    const { name, nxTags = [], nxImplicitDependencies = [] } = readJson(join(workspaceRoot, file));
    const projectType = root.startsWith("apps/") ? "application" : "library";
    const targets = targetsOf(root, hasTests(join(workspaceRoot, root)));
    const project = {
      root,
      name,
      projectType,
      tags: nxTags,
      implicitDependencies: nxImplicitDependencies,
      targets,
    };
    return [file, { projects: { [root]: project } }];
  });
}];

export const createDependencies = (_options, { projects, fileMap, workspaceRoot }) => {
  const nameOf = new Map(Object.entries(projects).map(([name, { root }]) => [root, name]));
  // A file that appeared since Nx looked would make it refuse all edges.
  const known = new Set(Object.values(fileMap.projectFileMap).flat().map(({ file }) => file));
  return readEdges(workspaceRoot).flatMap(({ source, target, file }) => {
    const [from, to] = [nameOf.get(source), nameOf.get(target)];
    return from && to && known.has(file)
      ? [{ source: from, target: to, sourceFile: file, type: "static" }]
      : [];
  });
};

/** @param {string} workspaceRoot */
function readEdges(workspaceRoot) {
  const script = fileURLToPath(new URL("./print_edges.ts", import.meta.url));
  const args = ["run", "-A", "--no-check", script, workspaceRoot];
  const installed = join(workspaceRoot, "node_modules/deno/bin.cjs");
  const [program, ...first] = existsSync(installed) ? [process.execPath, installed] : ["deno"];
  return JSON.parse(execFileSync(program, [...first, ...args], { encoding: "utf8", maxBuffer: 2 ** 28 }));
}
