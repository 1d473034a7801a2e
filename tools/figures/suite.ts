import { join } from "node:path";
import { ROOT } from "../house/workspace.ts";
import type { Figure, IterisFigure, LegoFigure, Results } from "./results.ts";

/** What to measure, and on what. */
export interface SuiteOptions {
  readonly device: string;
  readonly profile: string;
  /** The commit that is measured; absent: as git says. */
  readonly commit?: string | undefined;
}

/** Sizes of the LoRA-LEGO merge. */
const LEGO_SIZES: Readonly<Record<"hardware" | "software", readonly string[]>> = {
  hardware: ["--layers", "2", "--float64", "--no-kmeans"],
  software: ["--layers", "1", "--adapters", "3", "--rank", "8", "--float64", "--no-kmeans"],
};

/** IterIS: on hardware the whole model by the published method, and some layers with what is added to it. */
const ITERIS_RUNS: Readonly<Record<"hardware" | "software", readonly (readonly string[])[]>> = {
  hardware: [
    ["--layers", "32", "--methods", "iteris"],
    ["--layers", "4", "--methods", "iteris+,iteris+metric"],
  ],
  software: [[]],
};

/** Runs a benchmark with `--json` and gives what it left there; its progress goes to the terminal. */
async function measure<T>(program: string, args: readonly string[], folder: string): Promise<T> {
  const file = join(folder, "figures.json");
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", `tests/bench/${program}.ts`, ...args, "--json", file],
    cwd: ROOT,
    stdin: "null",
  });
  console.log(`\n# ${program}\n`);
  const { success } = await command.spawn().status;
  if (!success) throw new Error(`tests/bench/${program}.ts failed; run it alone to see why`);
  return JSON.parse(await Deno.readTextFile(file)) as T;
}

/** Measures everything: linear algebra, IterIS and LoRA-LEGO at the shapes of a 7B, at sizes that suit the device. */
export async function runSuite({ device, profile, commit }: SuiteOptions): Promise<Results> {
  const folder = await Deno.makeTempDir({ prefix: "lora-loom-bench-" });
  try {
    const algebra = await measure<Pick<Results, "device" | "peaks"> & { figures: Figure[] }>(
      "linear_algebra",
      ["--device", device, "--profile", profile],
      folder,
    );
    const isSoftware = algebra.device.class === "software" || algebra.device.class === "cpu";
    const kind = isSoftware ? "software" : "hardware";
    const iteris: IterisFigure[] = [];
    for (const run of ITERIS_RUNS[kind]) {
      const found = await measure<{ iteris: IterisFigure[] }>(
        "iteris_7b",
        ["--device", device, ...run],
        folder,
      );
      iteris.push(...found.iteris);
    }
    const lego = await measure<{ lego: LegoFigure }>(
      "lego_7b",
      ["--device", device, "--folder", join(folder, "adapters"), ...LEGO_SIZES[kind]],
      folder,
    );
    const { name, class: deviceClass, driver } = algebra.device;
    return {
      device: { name, class: deviceClass, driver },
      profile,
      dawn: await dawnVersion(),
      commit: commit ?? await currentCommit(),
      peaks: algebra.peaks,
      figures: algebra.figures,
      iteris,
      lego: essentials(lego.lego),
      torch: null,
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What the page needs of a LoRA-LEGO merge. */
function essentials(figure: LegoFigure): LegoFigure {
  const { layers, adapters, adapterRank, rank, seconds, ratio_to_plain_io, distance } = figure;
  return {
    layers,
    adapters,
    adapterRank,
    rank,
    seconds,
    ratio_to_plain_io,
    ...distance === undefined ? {} : { distance },
  };
}

async function dawnVersion(): Promise<string> {
  const text = await Deno.readTextFile(join(ROOT, "node_modules/webgpu/package.json"));
  return (JSON.parse(text) as { version: string }).version;
}

/** The commit of the working tree, with a plus sign where files differ from it; null outside a repository. */
async function currentCommit(): Promise<string | null> {
  const git = async (...args: string[]) => {
    const { success, stdout } = await new Deno.Command("git", { args, cwd: ROOT, stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  };
  try {
    const commit = await git("rev-parse", "--short", "HEAD");
    return commit && await git("status", "--porcelain", "--untracked-files=no") ? `${commit}+` : commit;
  } catch {
    return null; // no git
  }
}
