/**
 * Finds the software Vulkan driver that a set-up put into the project and makes it visible to Dawn, without environment
 * variables set by hand: it works in a bare `deno test -A`.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { TensorError } from "../errors.ts";

/** A software Vulkan driver inside the project. All paths are absolute. */
export interface SoftwareDriver {
  readonly manifest: string;
  /** The driver's ICD file, which the Vulkan loader reads. */
  readonly icd: string;
  /** The Vulkan loader, `libvulkan.so.1`. */
  readonly loader: string;
  /** Shared libraries that the driver needs, in the order in which to load them. */
  readonly libraries: readonly string[];
}

const MANIFEST = join(".cache", "vulkan", "driver.json");

/** Looks for the driver's manifest, `.cache/vulkan/driver.json`, upward from the given folders. */
export function findSoftwareDriver(
  from: readonly string[] = [process.cwd(), import.meta.dirname ?? "."],
): SoftwareDriver | undefined {
  for (const start of from) {
    for (let folder = resolve(start);; folder = dirname(folder)) {
      const manifest = join(folder, MANIFEST);
      if (existsSync(manifest)) return readManifest(manifest);
      if (folder === dirname(folder)) break;
    }
  }
  return undefined;
}

function readManifest(manifest: string): SoftwareDriver {
  const bad = (what: string) =>
    new TensorError(
      "bad_driver_manifest",
      `${manifest} ${what}; expected {"version": 1, "icd": path, "loader": path, "libraries": [path, …]}`,
      "run `deno task setup` again",
      manifest,
    );
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(manifest, "utf8"));
  } catch (error) {
    throw bad(`cannot be read (${error instanceof Error ? error.message : error})`);
  }
  const { version, icd, loader, libraries } = (content ?? {}) as Record<string, unknown>;
  if (version !== 1) throw bad(`has version ${version}`);
  if (typeof icd !== "string" || typeof loader !== "string") throw bad("lacks icd or loader");
  if (!Array.isArray(libraries) || !libraries.every((path) => typeof path === "string")) {
    throw bad("lacks libraries");
  }
  const absolute = (path: string) => resolve(dirname(manifest), path);
  return { manifest, icd: absolute(icd), loader: absolute(loader), libraries: libraries.map(absolute) };
}

/** Libraries that stay loaded until the process ends; dropping a handle would unload its library. */
const loaded: unknown[] = [];

function tryLoad(library: string): boolean {
  const open = (globalThis as { Deno?: { dlopen(path: string, symbols: object): unknown } }).Deno?.dlopen;
  if (!open) return false;
  try {
    loaded.push(open(library, {}));
    return true;
  } catch {
    return false;
  }
}

/**
 * Loads those of `libraries` that the system lacks. A library whose own needs are not loaded yet fails and is tried again
 * in the next pass, until a pass loads nothing more.
 */
function loadMissing(libraries: readonly string[]): void {
  let missing = libraries.filter((path) => !tryLoad(path.slice(path.lastIndexOf("/") + 1)));
  for (let before = Infinity; missing.length < before;) {
    before = missing.length;
    missing = missing.filter((path) => !tryLoad(path));
  }
}

/** Whether there is a Vulkan loader, the system's or one loaded already; undefined where that cannot be found out. */
export function hasVulkanLoader(): boolean | undefined {
  return "Deno" in globalThis ? tryLoad("libvulkan.so.1") : undefined;
}

/**
 * Makes the project's software driver visible to the Vulkan loader, beside the drivers of the system. Does nothing where
 * there is none; where the user chose drivers through `VK_DRIVER_FILES` or `VK_ICD_FILENAMES`, only the loader is provided.
 */
export function prepareSoftwareDriver(): SoftwareDriver | undefined {
  if (process.platform !== "linux") return undefined;
  const driver = findSoftwareDriver();
  if (!driver) return undefined;
  // Dawn asks for the loader by its short name, and the loader for the driver's libraries: a library that is already in
  // the process answers to its name.
  if (process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES) {
    loadMissing([driver.loader]);
    return undefined;
  }
  const added = process.env.VK_ADD_DRIVER_FILES;
  if (!added?.split(":").includes(driver.icd)) {
    process.env.VK_ADD_DRIVER_FILES = added ? `${added}:${driver.icd}` : driver.icd;
  }
  loadMissing([...driver.libraries, driver.loader]);
  return driver;
}
