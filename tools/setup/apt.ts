import { join } from "node:path";
import {
  type AptSource,
  distributionSources,
  formatSources,
  parseListFile,
  parseSourcesFile,
} from "./apt_sources.ts";
import { runCommand } from "./command.ts";
import type { Distribution } from "./distribution.ts";
import { SetupError } from "./errors.ts";

const SECOND = 1000;

/** The archives that apt knows on this machine, from its own configuration. */
async function readAptSources(): Promise<AptSource[]> {
  const keys = ["Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d"];
  const text = await runCommand(["apt-config", "shell", "list", keys[0]!, "parts", keys[1]!], {
    timeout: 10 * SECOND,
  });
  const value = (name: string) => new RegExp(`^${name}='(.*)'$`, "m").exec(text)?.[1];
  const [list, parts] = [value("list"), value("parts")];
  const files = [list, ...(parts ? filesIn(parts) : [])].filter((path) => path !== undefined);
  return files.flatMap((path) => {
    const content = readIfThere(path);
    return path.endsWith(".sources") ? parseSourcesFile(content) : parseListFile(content);
  });
}

function filesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).sort()
      .filter((name) => /\.(?:list|sources)$/.test(name)).map((name) => join(folder, name));
  } catch {
    return [];
  }
}

function readIfThere(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/**
 * apt with its state, lists and cache in a folder of our own, so that it needs no root and changes nothing of the
 * system's. What the system has installed is read, so that only what is missing is fetched.
 */
export class PrivateApt {
  readonly #options: readonly string[];
  readonly #archives: string;
  readonly #release: string | undefined;
  readonly #folder: string;

  private constructor(folder: string, release: string | undefined, installed: string) {
    this.#folder = folder;
    this.#archives = join(folder, "cache/archives");
    this.#release = release;
    const options = {
      "Dir::State": join(folder, "state"),
      "Dir::State::Lists": join(folder, "lists"),
      "Dir::State::status": installed,
      "Dir::Cache": join(folder, "cache"),
      "Dir::Log": join(folder, "log"),
      "Dir::Etc::SourceList": "/dev/null",
      "Dir::Etc::SourceParts": join(folder, "sources"),
      "Dir::Etc::Preferences": "/dev/null",
      "Dir::Etc::PreferencesParts": "/dev/null",
      "Debug::NoLocking": "1",
      "APT::Sandbox::User": "root",
      "APT::Update::Post-Invoke-Success": "",
      // Without this an unreachable mirror is a warning only.
      "APT::Update::Error-Mode": "any",
      "Acquire::Languages": "none",
      "Acquire::Retries": "2",
      "Acquire::http::Timeout": "20",
      "Acquire::https::Timeout": "20",
    };
    this.#options = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  }

  /**
   * Fetches the package lists of `distribution` into `folder`.
   *
   * @param backports also those of its backports, which then win over older versions
   */
  static async open(folder: string, distribution: Distribution, backports: boolean): Promise<PrivateApt> {
    const sources = distributionSources(await readAptSources(), distribution.codename, backports);
    if (sources.length === 0) {
      throw new SetupError(
        "unknown_distribution",
        `apt knows no archive of ${distribution.title}`,
        `add the distribution's archive to /etc/apt/sources.list, then run: deno task setup`,
        "/etc/apt",
      );
    }
    for (const name of ["state", "lists/partial", "cache/archives/partial", "log", "sources"]) {
      await Deno.mkdir(join(folder, name), { recursive: true });
    }
    await Deno.writeTextFile(join(folder, "sources/distribution.sources"), formatSources(sources));
    const installed = await installedPackages(folder);
    const release = backports ? `${distribution.codename}-backports` : undefined;
    const apt = new PrivateApt(folder, release, installed);
    await apt.#run("apt-get", ["update"], 180 * SECOND);
    return apt;
  }

  /** Version of a package that would be installed, or nothing where the archives have none. */
  async candidate(name: string): Promise<string | undefined> {
    const text = await this.#run("apt-cache", ["policy", name], 30 * SECOND);
    const version = /^\s+Candidate: (.*)$/m.exec(text)?.[1];
    return version === "(none)" ? undefined : version;
  }

  /** Fetches packages with everything they need that is not installed; gives the paths of the fetched files. */
  async fetchWithDependencies(names: readonly string[]): Promise<string[]> {
    const flags = ["install", "--download-only", "--reinstall", "--no-install-recommends", "-y"];
    await this.#run("apt-get", [...flags, ...names], 420 * SECOND);
    return this.#fetched(this.#archives);
  }

  /** Fetches just these packages; gives the paths of the fetched files. */
  async fetch(names: readonly string[]): Promise<string[]> {
    const folder = join(this.#folder, "downloads");
    await Deno.mkdir(folder, { recursive: true });
    await this.#run("apt-get", ["download", ...names], 420 * SECOND, folder);
    return this.#fetched(folder);
  }

  #run(
    program: "apt-get" | "apt-cache",
    args: readonly string[],
    timeout: number,
    cwd?: string,
  ): Promise<string> {
    const release = this.#release === undefined ? [] : ["-t", this.#release];
    const options = { timeout, ...(cwd === undefined ? {} : { cwd }) };
    return runCommand([program, "-q", ...this.#options, ...release, ...args], options);
  }

  #fetched(folder: string): string[] {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".deb"))
      .sort()
      .map((name) => join(folder, name));
  }
}

/** The system's record of installed packages, or an empty one where it keeps none. */
async function installedPackages(folder: string): Promise<string> {
  const status = "/var/lib/dpkg/status";
  try {
    await Deno.open(status).then((file) => file.close());
    return status;
  } catch {
    const empty = join(folder, "status");
    await Deno.writeTextFile(empty, "");
    return empty;
  }
}

/** Unpacks a package file below `folder` without installing it. */
export async function unpack(packageFile: string, folder: string): Promise<void> {
  await runCommand(["dpkg-deb", "--extract", packageFile, folder], { timeout: 120 * SECOND });
}
