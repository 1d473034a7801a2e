import { basename, join } from "node:path";
import { PrivateApt, unpack } from "./apt.ts";
import { type Distribution, installCommand } from "./distribution.ts";
import { SetupError } from "./errors.ts";
import { collectLibraries, libraryFolders } from "./libraries.ts";

/** A software Vulkan driver and the packages that hold it. */
interface DriverSource {
  readonly title: string;
  readonly packages: readonly string[];
  /** Whether what the packages depend on is needed too. */
  readonly dependencies: boolean;
  /** File name of the driver's library. */
  readonly library: string;
  /** Oldest version of the first package that Dawn accepts. */
  readonly oldest: number;
}

const LAVAPIPE: DriverSource = {
  title: "lavapipe",
  packages: ["mesa-vulkan-drivers", "libvulkan1"],
  dependencies: true,
  library: "libvulkan_lvp.so",
  oldest: 23,
};

const SWIFTSHADER: DriverSource = {
  title: "SwiftShader",
  packages: ["chromium-common"],
  dependencies: false,
  library: "libvk_swiftshader.so",
  oldest: 1,
};

/** Releases whose own Mesa is too old for Dawn. */
const NEED_BACKPORTS = new Set(["bookworm"]);

/** What `driver.json` says: where the driver is, relative to the folder of that file. */
export interface DriverManifest {
  readonly version: 1;
  /** The JSON file that tells the Vulkan loader about the driver. */
  readonly icd: string;
  /** The Vulkan loader, `libvulkan.so.1`. */
  readonly loader: string;
  /** Shared libraries to load before the driver, each after those it needs. */
  readonly libraries: readonly string[];
  /** What it is, for people: the driver's name and the packages it came from. */
  readonly title: string;
  readonly packages: readonly string[];
}

/**
 * Fetches a software Vulkan driver from the distribution's packages and lays it out in `folder`: lavapipe, else
 * SwiftShader.
 *
 * @param folder where it goes; must be empty
 * @param scratch a folder for downloads, which the caller removes
 * @throws {SetupError} where neither can be had
 */
export async function fetchDriver(
  folder: string,
  scratch: string,
  distribution: Distribution,
  log: (line: string) => void,
): Promise<DriverManifest> {
  const failures: string[] = [];
  for (const source of [LAVAPIPE, SWIFTSHADER]) {
    const own = join(scratch, source.title);
    try {
      return await fetchFrom(source, folder, own, distribution, log);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      failures.push(`${source.title}: ${error.message}`);
      log(`${source.title} could not be had`);
      for (const entry of [...Deno.readDirSync(folder)]) {
        await Deno.remove(join(folder, entry.name), { recursive: true });
      }
    }
  }
  throw new SetupError(
    "package_unavailable",
    `no software Vulkan driver could be fetched (${failures.join("; ")})`,
    `check the network or the package mirror and run: deno task setup; or install one: ${
      installCommand(distribution)
    }`,
    folder,
  );
}

async function fetchFrom(
  source: DriverSource,
  folder: string,
  scratch: string,
  distribution: Distribution,
  log: (line: string) => void,
): Promise<DriverManifest> {
  const backports = source === LAVAPIPE && NEED_BACKPORTS.has(distribution.codename);
  const apt = await PrivateApt.open(join(scratch, "apt"), distribution, backports);
  const [main] = source.packages;
  const version = await apt.candidate(main!);
  if (version === undefined || majorVersion(version) < source.oldest) {
    throw new SetupError(
      "package_unavailable",
      `${distribution.title} offers ${main} ${version ?? "not at all"}; ${source.oldest} or newer is needed`,
      installCommand(distribution),
      main!,
    );
  }
  log(`fetching ${source.title} (${main} ${version}) from the distribution's packages`);
  const files =
    await (source.dependencies ? apt.fetchWithDependencies(source.packages) : apt.fetch(source.packages));
  const unpacked = join(scratch, "root");
  for (const file of files) {
    // The C library of the running system must stay the only one.
    if (!/^libc6_|^libc-bin_/.test(basename(file))) await unpack(file, unpacked);
  }
  return await layOut(source, unpacked, folder, files);
}

/** 25 for `25.0.7-2~bpo12+1` and for `1:25.0`. */
export function majorVersion(version: string): number {
  return Number.parseInt(version.replace(/^\d+:/, ""), 10);
}

/** Copies the driver and the libraries it needs from an unpacked tree, and writes its descriptions. */
async function layOut(
  source: DriverSource,
  unpacked: string,
  folder: string,
  files: readonly string[],
): Promise<DriverManifest> {
  const folders = libraryFolders(unpacked);
  const find = (name: string) => {
    const home = folders.find((one) => [...Deno.readDirSync(one)].some((entry) => entry.name === name));
    if (home !== undefined) return join(home, name);
    throw new SetupError(
      "driver_incomplete",
      `the fetched packages hold no ${name}`,
      "run: deno task setup",
      unpacked,
    );
  };
  const wanted = await collectLibraries([find("libvulkan.so.1"), find(source.library)], folders);
  await Deno.mkdir(join(folder, "lib"), { recursive: true });
  for (const { name, path } of wanted) {
    await Deno.copyFile(await Deno.realPath(path), join(folder, "lib", name));
  }
  const icd = {
    file_format_version: "1.0.0",
    ICD: { library_path: `./lib/${source.library}`, api_version: "1.3.0" },
  };
  await Deno.writeTextFile(join(folder, "icd.json"), JSON.stringify(icd, null, 2) + "\n");
  const manifest: DriverManifest = {
    version: 1,
    icd: "icd.json",
    loader: "lib/libvulkan.so.1",
    libraries: wanted.map(({ name }) => `lib/${name}`),
    title: source.title,
    packages: files.map((file) => basename(file).replace(/_[^_]*\.deb$/, "").replaceAll("%3a", ":")),
  };
  await Deno.writeTextFile(join(folder, "driver.json"), JSON.stringify(manifest, null, 2) + "\n");
  return manifest;
}

/** Reads `driver.json` in `folder`; nothing where it is missing, unreadable or names a file that is not there. */
export function readManifest(folder: string): DriverManifest | undefined {
  try {
    const manifest = JSON.parse(Deno.readTextFileSync(join(folder, "driver.json"))) as DriverManifest;
    if (manifest.version !== 1) return undefined;
    for (const path of [manifest.icd, manifest.loader, ...manifest.libraries]) {
      if (!Deno.statSync(join(folder, path)).isFile) return undefined;
    }
    return manifest;
  } catch {
    return undefined;
  }
}
