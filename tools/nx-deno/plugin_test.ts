import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { memberManifests, withTemporaryWorkspace } from "../house/temporary_workspace.ts";
import { listFiles, ROOT } from "../house/workspace.ts";

const FILES = {
  ...memberManifests(["libs/tensor", "libs/lego", "libs/testing", "apps/runner", "tools", "tools/std"], {
    "@std/assert": "./libs/testing/src/assert.ts",
    "@std/cli/parse-args": "./tools/std/src/mod.ts",
  }),
  ".gitignore": "node_modules\n.nx\n.cache\n",
  "libs/tensor/src/mod.ts": `export const gemm = 1;\n`,
  "libs/tensor/src/mod_test.ts": `import "@std/assert";\nimport "./mod.ts";\n`,
  "libs/lego/src/mod.ts": `// import "@lora-loom/runner";\nexport type { Rank } from "./rank.ts";\n` +
    `/** import "@lora-loom/testing"; */\nexport const text = \`\nimport "@lora-loom/testing";\n\`;\n`,
  "libs/lego/src/rank.ts": `import { gemm } from "@lora-loom/tensor";\nexport type Rank = typeof gemm;\n`,
  "libs/testing/src/mod.ts": `export * from "./assert.ts";\n`,
  "libs/testing/src/assert.ts": `export const assert = 1;\n`,
  "apps/runner/src/mod.ts": `import "@std/cli/parse-args";\n` +
    `export const later = () => import("@lora-loom/lego");\n`,
  "tools/src/mod.ts": "export const tool = 1;\n",
  "tools/std/src/mod.ts": "export const parse = 1;\n",
};

/** What the files above import, read by a person. */
const EDGES = [
  "lego → tensor",
  "runner → lego",
  "runner → std",
  "tensor → testing",
];

async function run(root: string, program: string, ...args: string[]): Promise<string> {
  const command = new Deno.Command(program, {
    args,
    cwd: root,
    env: {
      NX_DAEMON: "false",
      NX_WORKSPACE_ROOT_PATH: root,
      NX_CACHE_PROJECT_GRAPH: "false",
      NO_COLOR: "1",
      PATH: `${join(ROOT, "node_modules/.bin")}:${Deno.env.get("PATH")}`,
    },
  });
  const { success, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  const text = decoder.decode(stdout) + decoder.decode(stderr);
  assert(success, `${program} ${args.join(" ")} failed:\n${text}`);
  return text;
}

const nx = (root: string, ...args: string[]) =>
  run(root, Deno.execPath(), "run", "-A", join(ROOT, "node_modules/.bin/nx"), ...args);

const short = (name: string) => name.replace("@lora-loom/", "");

/** A copy of the plugin and of `nx.json` around `FILES`, committed to a repository of its own. */
async function withNxWorkspace(body: (root: string) => Promise<void>): Promise<void> {
  const files: Record<string, string> = { ...FILES };
  const copied = [
    ...listFiles(ROOT, "tools/nx-deno", () => true),
    ...listFiles(ROOT, "tools/house", () => true),
  ];
  for (const path of ["nx.json", "package.json", "package-lock.json", ...copied]) {
    if (!path.endsWith("_test.ts")) files[path] = await Deno.readTextFile(join(ROOT, path));
  }
  // The packages that the helpers of tests import are not part of this workspace.
  files["tools/house/temporary_workspace.ts"] = "export {};\n";
  await withTemporaryWorkspace(files, async (root) => {
    await Deno.symlink(join(ROOT, "node_modules"), join(root, "node_modules"));
    await run(root, "git", "init", "-q", "-b", "main");
    await run(root, "git", "add", "-A");
    await run(root, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start");
    await body(root);
  });
}

Deno.test("the plugin gives Nx exactly the edges that are imported, which `affected` and the cache follow", async () => {
  await withNxWorkspace(async (root) => {
    await nx(root, "graph", "--file=.cache/graph.json");
    const { graph } = JSON.parse(await Deno.readTextFile(join(root, ".cache/graph.json")));
    const edges = Object.values(graph.dependencies as Record<string, { source: string; target: string }[]>)
      .flat()
      .map(({ source, target }) => `${short(source)} → ${short(target)}`);
    assertEquals(edges.filter((edge) => !edge.startsWith("tools →")).sort(), EDGES);

    const affected = async (file: string) => {
      const names = JSON.parse(
        (await nx(root, "show", "projects", "--affected", `--files=${file}`, "--json")).trim().split("\n").at(
          -1,
        )!,
      );
      return (names as string[]).map(short).sort();
    };
    assertEquals(await affected("libs/tensor/src/mod.ts"), ["lego", "runner", "tensor"]);

    await checkedMembers(root);
    await Deno.writeTextFile(join(root, "libs/tensor/src/mod_test.ts"), `import "@std/assert";\n`);
    assertEquals(await checkedMembers(root), ["tensor"]);
    await Deno.writeTextFile(join(root, "libs/tensor/src/mod.ts"), "export const gemm = 2;\n");
    assertEquals(await checkedMembers(root), ["lego", "runner", "tensor"]);
  });
});

/** Checks all members but the tools, and gives those whose result Nx did not have in its cache. */
async function checkedMembers(root: string): Promise<string[]> {
  const text = await nx(
    root,
    "run-many",
    "-t",
    "check",
    "--outputStyle=stream",
    "--exclude=@lora-loom/tools",
  );
  return [...text.matchAll(/^> nx run @lora-loom\/(\S+):check[ \t]*$/gm)].map(([, name]) => name!).sort();
}
