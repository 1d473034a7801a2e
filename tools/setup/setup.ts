import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { findAdapter } from "./adapter.ts";
import { installCommand, readDistribution } from "./distribution.ts";
import { type DriverManifest, fetchDriver, readManifest } from "./driver.ts";
import { SetupError } from "./errors.ts";
import { findDriverFiles } from "./system_vulkan.ts";

/** What {@linkcode setUp} found or did. */
export interface SetupOutcome {
  readonly state:
    /** The environment says to leave everything alone. */
    | "skipped"
    /** The machine needs nothing. */
    | "not_needed"
    /** A driver was fetched before. */
    | "cached"
    /** A driver was fetched now. */
    | "installed";
  /** For people, in one line. */
  readonly message: string;
}

/** Folder of the fetched driver in a project at `root`. */
export const driverFolder = (root: string): string => join(root, ".cache/vulkan");

/**
 * Makes sure that WebGPU finds an adapter on this machine: where no Vulkan driver works, a software one is fetched into
 * `.cache/vulkan`, without root.
 *
 * @param root the project's folder
 * @param log progress, line by line
 * @throws {SetupError} where the machine has no driver and none can be fetched
 */
export async function setUp(root: string, log: (line: string) => void): Promise<SetupOutcome> {
  if (Deno.env.get("LORA_LOOM_SKIP_SETUP") === "1") {
    return { state: "skipped", message: "set-up skipped, because LORA_LOOM_SKIP_SETUP is 1" };
  }
  const cached = readManifest(driverFolder(root));
  if (cached) return { state: "cached", message: `software Vulkan driver in place: ${describe(cached)}` };
  if (Deno.build.os !== "linux") {
    return { state: "not_needed", message: "this system brings its own GPU interface" };
  }
  requirePackages(root);
  const adapter = findDriverFiles(Deno.env.toObject()).length > 0 ? await findAdapter() : undefined;
  if (adapter) return { state: "not_needed", message: `WebGPU works on this machine: ${adapter}` };
  const start = performance.now();
  log("no usable Vulkan driver on this machine; fetching a software one (once, about a minute)");
  const manifest = await install(root, log);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  return {
    state: "installed",
    message: `software Vulkan driver fetched in ${seconds} s: ${describe(manifest)}`,
  };
}

/** Without Dawn no driver can be tried. */
function requirePackages(root: string): void {
  const folder = join(root, "node_modules/webgpu");
  if (existsSync(folder)) return;
  throw new SetupError(
    "packages_missing",
    "the packages are not installed",
    "type: npm ci (or: deno install)",
    folder,
  );
}

async function install(root: string, log: (line: string) => void): Promise<DriverManifest> {
  const distribution = readDistribution();
  if (!distribution.usesApt) {
    throw new SetupError(
      "unknown_distribution",
      `${distribution.title} has no Vulkan driver that works, and only Debian's and Ubuntu's packages can be fetched here`,
      installCommand(distribution),
      "/etc/os-release",
    );
  }
  await Deno.mkdir(join(root, ".cache"), { recursive: true });
  const scratch = await Deno.makeTempDir({ dir: join(root, ".cache"), prefix: "vulkan-setup-" });
  try {
    const staged = join(scratch, "vulkan");
    await Deno.mkdir(staged);
    const manifest = await fetchDriver(staged, join(scratch, "downloads"), distribution, log);
    await requireAdapter(staged, manifest);
    await replaceFolder(staged, driverFolder(root), join(scratch, "old"));
    return manifest;
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Tries the driver before anything relies on it. */
async function requireAdapter(folder: string, manifest: DriverManifest): Promise<void> {
  const adapter = await findAdapter(driverEnvironment(folder, manifest));
  if (adapter === undefined) {
    throw new SetupError(
      "driver_unusable",
      `${describe(manifest)} was fetched, but WebGPU finds no adapter with it`,
      installCommand(readDistribution()),
      manifest.icd,
    );
  }
}

/** Variables with which a new process takes the fetched driver, and no other. */
export function driverEnvironment(folder: string, { icd, loader }: DriverManifest): Record<string, string> {
  return { VK_DRIVER_FILES: join(folder, icd), LD_LIBRARY_PATH: dirname(join(folder, loader)) };
}

/** Puts `staged` in the place of `target` by renaming, so that nobody ever sees half a driver. */
async function replaceFolder(staged: string, target: string, old: string): Promise<void> {
  try {
    await Deno.rename(target, old);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await Deno.rename(staged, target);
}

function describe({ title, packages }: DriverManifest): string {
  const [first = ""] = packages.filter((name) => /^(?:mesa-vulkan-drivers|chromium-common)_/.test(name));
  return `${title} (${first.replace("_", " ")})`;
}
