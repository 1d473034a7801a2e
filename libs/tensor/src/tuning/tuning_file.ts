/** What tuning found, on disk: one file for each adapter, driver, profile and set of kernels. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import type { DeviceInfo } from "../device.ts";
import type { Profile } from "../gpu/dawn.ts";
import { kernelSource } from "../gpu/kernel.ts";
import { PRODUCT_KERNELS } from "../ops/matrix_product.ts";
import { PRODUCT_VARIANTS } from "../ops/product_variants.ts";

/** Variants of matrix products by bucket of shapes. */
export type ProductChoices = ReadonlyMap<string, string>;

/** What choices were measured with; they hold for nothing else. */
export interface TuningKey {
  readonly adapter: string;
  readonly driver: string;
  readonly profile: Profile;
  /** Hash of the kernels that were measured: it changes with the library. */
  readonly kernels: string;
}

const VERSION = 1;

/** The key of a device. */
export function tuningKey(
  { name, driver }: Pick<DeviceInfo, "name" | "driver">,
  profile: Profile,
): TuningKey {
  return { adapter: name, driver, profile, kernels: kernelHash() };
}

let hash: string | undefined;

function kernelHash(): string {
  return hash ??= PRODUCT_KERNELS.reduce(
    (sum, kernel) => sum.update(kernelSource(kernel)),
    createHash("sha256").update([...PRODUCT_VARIANTS.keys()].join()),
  ).digest("hex").slice(0, 16);
}

/** Where choices are kept: `lora-loom/products` in the user's folder for caches, a file for each adapter and profile. */
export function tuningPath({ adapter, profile }: TuningKey): string {
  const caches = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  const slug = `${adapter} ${profile}`.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return join(caches, "lora-loom", "products", `${slug}.json`);
}

/** Writes choices, complete or not at all. */
export async function writeTuning(path: string, key: TuningKey, choices: ProductChoices): Promise<void> {
  const products = Object.fromEntries([...choices].sort(([a], [b]) => a < b ? -1 : 1));
  await mkdir(dirname(path), { recursive: true });
  const staged = `${path}.partial-${process.pid}`;
  await writeFile(staged, `${JSON.stringify({ version: VERSION, ...key, products }, null, 2)}\n`);
  await rename(staged, path);
}

/**
 * The choices in a file; undefined where there is none, and where it was made with anything else than `key`, which `warn` is told.
 */
export async function readTuning(
  path: string,
  key: TuningKey,
  warn: (message: string) => void,
): Promise<ProductChoices | undefined> {
  const ignore = (what: string) => {
    warn(`${path} ${what}; it is ignored. Type \`deno task tune\` to measure again`);
    return undefined;
  };
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    return ignore(
      (error as { code?: string }).code === "ENOENT" ? "does not exist" : `cannot be read (${error})`,
    );
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return ignore("is not JSON");
  }
  const { version, products, ...rest } = (content ?? {}) as Record<string, unknown>;
  if (version !== VERSION) return ignore(`has version ${version}, not ${VERSION}`);
  for (const [name, value] of Object.entries(key)) {
    if (rest[name] !== value) {
      return ignore(`was made for ${name} ${JSON.stringify(rest[name])}, not ${JSON.stringify(value)}`);
    }
  }
  if (typeof products !== "object" || products === null || Array.isArray(products)) {
    return ignore("lacks products");
  }
  const choices = Object.entries(products);
  const unknown = choices.find(([, variant]) => !PRODUCT_VARIANTS.has(variant));
  if (unknown) return ignore(`names the variant ${JSON.stringify(unknown[1])}, which does not exist`);
  return new Map(choices);
}

/** What tells sets of choices apart. */
export function digestOf(choices: ProductChoices): string {
  return createHash("sha256").update(JSON.stringify([...choices].sort())).digest("hex").slice(0, 16);
}
