/**
 * Dawn writes warnings straight to the process's stderr whenever it looks at adapters, among them two about limits that
 * nothing here uses. No setting stops it, so its lines are caught on the way and those two are left out.
 */

/** Lines that say nothing a user could act on. */
const NOISE = /^Warning: maxDynamic(Uniform|Storage)BuffersPerPipelineLayout artificially reduced .*\n?/gm;

interface LibC {
  readonly symbols: {
    dup(descriptor: number): number;
    dup2(from: number, to: number): number;
    close(descriptor: number): number;
    memfd_create(name: Uint8Array<ArrayBuffer>, flags: number): number;
  };
}

interface Runtime {
  dlopen(path: string, symbols: object): unknown;
  readTextFileSync(path: string): string;
  stderr: { writeSync(data: Uint8Array): number };
}

let library: LibC | undefined | null = null;

/** The C library through Deno's foreign functions; undefined where there are none. */
function libc(runtime: Runtime | undefined): LibC | undefined {
  if (library !== null) return library;
  try {
    library = runtime?.dlopen("libc.so.6", {
      dup: { parameters: ["i32"], result: "i32" },
      dup2: { parameters: ["i32", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
      memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
    }) as LibC | undefined;
  } catch {
    library = undefined;
  }
  return library;
}

/**
 * Runs `work`, which must do all its printing before it returns, and passes on what it printed to stderr except for the
 * noise. Where stderr cannot be caught, it only runs `work`.
 */
export function withoutDawnNoise<T>(work: () => T): T {
  const runtime = (globalThis as { Deno?: Runtime }).Deno;
  const c = libc(runtime)?.symbols;
  if (!c || !runtime) return work();
  const saved = c.dup(2);
  const caught = c.memfd_create(new Uint8Array([0x65, 0x72, 0x72, 0]), 0);
  if (saved < 0 || caught < 0) return work();
  try {
    c.dup2(caught, 2);
    return work();
  } finally {
    c.dup2(saved, 2);
    const text = runtime.readTextFileSync(`/proc/self/fd/${caught}`).replace(NOISE, "");
    c.close(saved);
    c.close(caught);
    if (text) runtime.stderr.writeSync(new TextEncoder().encode(text));
  }
}
