/** The part of `package-lock.json` that matters here. */
export interface LockFile {
  packages: Record<string, LockEntry>;
}

/** One package of the lock file. */
export interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly license?: string;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

/** A package that another one names but the lock file leaves out. */
export interface MissingPackage {
  readonly name: string;
  readonly version: string;
  /** The lock file's key of the package that names it. */
  readonly parent: string;
}

/**
 * Optional packages that the lock file leaves out. npm does so with packages for other platforms that its registry does
 * not offer, and `npm ci` then refuses the lock file it made.
 */
export function findMissing({ packages }: LockFile): MissingPackage[] {
  return Object.entries(packages).flatMap(([parent, { optionalDependencies = {} }]) =>
    Object.entries(optionalDependencies)
      .filter(([name]) => !lookupPaths(parent, name).some((path) => path in packages))
      .map(([name, version]) => ({ name, version, parent }))
  ).sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Where Node would look for `name` from the package at `parent`. */
function lookupPaths(parent: string, name: string): string[] {
  const paths: string[] = [];
  let folder = parent;
  while (folder !== "") {
    paths.push(`${folder}/node_modules/${name}`);
    folder = folder.slice(0, Math.max(0, folder.lastIndexOf("node_modules/") - 1));
  }
  return [...paths, `node_modules/${name}`];
}

/** `lock` with an entry for each missing package. Its platform is read off its name, such as `@nx/nx-linux-x64-musl`. */
export function completeLock(lock: LockFile): LockFile {
  const added = findMissing(lock).map(({ name, version, parent }) => {
    const entry: LockEntry = {
      version,
      ...(lock.packages[parent]?.dev ? { dev: true } : {}),
      ...platformOf(name),
    };
    return [`node_modules/${name}`, entry] as const;
  });
  const entries = [...Object.entries(lock.packages), ...added].sort(([a], [b]) => a < b ? -1 : 1);
  return { ...lock, packages: Object.fromEntries(entries) };
}

function platformOf(name: string): LockEntry {
  const platform = /(linux|darwin|win32|freebsd|android)-(x64|arm64|arm|ia32|riscv64)(?:-(\w+))?$/.exec(name);
  if (!platform) throw new Error(`no platform can be read off the name of the optional package ${name}`);
  const [, os, cpu, library] = platform;
  const libc = library === "musl"
    ? ["musl"]
    : library === "gnu" || library === "glibc"
    ? ["glibc"]
    : undefined;
  return { cpu: [cpu!], ...(libc ? { libc } : {}), optional: true, os: [os!] };
}
