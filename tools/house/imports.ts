import { join, relative, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { listSources, type Member } from "./workspace.ts";

/** One import of one source file, as Deno resolves it. */
export interface Import {
  /** The file that imports, from the workspace's root. */
  readonly file: string;
  /** Line of the import, from 1. */
  readonly line: number;
  /** What is written there. */
  readonly specifier: string;
  /** The file it stands for, from the workspace's root; absent where that lies outside. */
  readonly target?: string;
  /** The npm package it stands for. */
  readonly package?: string;
  /** True where nothing is loaded at run time for it, or only when the code gets there. */
  readonly lazy: boolean;
}

interface Resolved {
  /** Absent where nothing was found; `deno check` reports that. */
  specifier?: string;
  span?: { start: { line: number } };
}

interface Info {
  modules: {
    specifier: string;
    error?: string;
    dependencies?: { specifier: string; code?: Resolved; type?: Resolved; isDynamic?: boolean }[];
  }[];
}

/**
 * Reads every import of the workspace's members with `deno info`, which knows the import map, type-only imports and
 * comments better than a pattern would. A file that cannot be parsed has no imports here; `deno check` reports it.
 */
export async function readImports(root: string, members: readonly Member[]): Promise<Import[]> {
  const sources = listSources(root, members);
  const info = await denoInfo(root, sources);
  const ours = new Set(sources);
  const imports: Import[] = [];
  for (const module of info.modules) {
    const file = insideRoot(root, module.specifier);
    if (file === undefined || !ours.has(file)) continue;
    for (const { specifier, code, type, isDynamic } of module.dependencies ?? []) {
      const resolved = code ?? type;
      const target = insideRoot(root, resolved?.specifier ?? "");
      const packageName = packageOf(resolved?.specifier ?? specifier);
      imports.push({
        file,
        line: (resolved?.span?.start.line ?? 0) + 1,
        specifier,
        ...(target === undefined ? {} : { target }),
        ...(packageName === undefined ? {} : { package: packageName }),
        lazy: code === undefined || isDynamic === true,
      });
    }
  }
  return imports;
}

/** One graph for all sources: a file that imports each of them, since `deno info` takes one root. */
async function denoInfo(root: string, sources: readonly string[]): Promise<Info> {
  const folder = join(root, ".cache");
  await Deno.mkdir(folder, { recursive: true });
  const entry = join(folder, `imports-${crypto.randomUUID()}.ts`);
  const lines = sources.map((file) => `import ${JSON.stringify(pathToFileURL(join(root, file)).href)};`);
  await Deno.writeTextFile(entry, lines.join("\n"));
  try {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", entry],
      cwd: root,
      stdout: "piped",
      stderr: "piped",
    });
    const { success, stdout, stderr } = await command.output();
    if (!success) throw new Error(`deno info failed: ${new TextDecoder().decode(stderr)}`);
    return JSON.parse(new TextDecoder().decode(stdout)) as Info;
  } finally {
    await Deno.remove(entry);
  }
}

function insideRoot(root: string, specifier: string): string | undefined {
  if (!specifier.startsWith("file:")) return undefined;
  const path = relative(root, fileURLToPath(specifier));
  return path.startsWith("..") || path.includes("node_modules") ? undefined : path.replaceAll(sep, "/");
}

/** Packages of `package.json` stay bare in the graph, since Deno resolves them in `node_modules` only when they load. */
function packageOf(specifier: string): string | undefined {
  const bare = specifier.replace(/^npm:\/?/, "");
  return /^(?:@[\w.-]+\/)?\w[\w.-]*(?=$|[/@])/.exec(bare)?.[0];
}
