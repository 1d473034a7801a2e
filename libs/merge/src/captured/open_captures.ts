import { type Capture, type CapturedModule, moduleKey, openCapture } from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import type { ModelJob } from "../methods/method.ts";
import type { PlannedModule } from "../plan/plan.ts";
import { didYouMean } from "../recipe/nearest.ts";

/** The captures of all adapters, open, each module of the plan found in each of them. */
export interface Captures extends Disposable {
  /** By adapter, in the recipe's order. */
  readonly paths: readonly string[];
  /** What adapter `index` captured of a module. */
  module(index: number, planned: PlannedModule): CapturedModule;
}

/**
 * Opens every adapter's capture and checks that all modules are there at their widths, before anything is solved.
 *
 * @throws {MergeError} `capture_module_missing`, `capture_width`, `capture_duplicate`, `capture_embedding`; and what opening the files throws
 */
export async function openCaptures({ adapters, plan }: ModelJob): Promise<Captures> {
  using owned = new DisposableStack();
  const tables: ReadonlyMap<string, CapturedModule>[] = [];
  const paths = adapters.map(({ recipe }) => recipe.capture!);
  for (const path of paths) {
    const table = tableOf(owned.use(await openCapture(path)));
    for (const planned of plan.modules) check(planned, table, path);
    tables.push(table);
  }
  const open = owned.move();
  return {
    paths,
    module: (index, { name }) => tables[index]!.get(captureKey(name))!,
    [Symbol.dispose]: () => open.dispose(),
  };
}

/**
 * Equal for two names of one module. Besides what {@linkcode moduleKey} makes equal: layouts that join a path by `_` name it as
 * others do, and PEFT's wrapper of a module as the module itself.
 */
export function captureKey(name: string): string {
  return moduleKey(name.replace(/\.base_layer$/, "")).replaceAll(".", "_");
}

function tableOf({ modules, path }: Capture): Map<string, CapturedModule> {
  const table = new Map<string, CapturedModule>();
  for (const module of modules.values()) {
    const other = table.get(captureKey(module.name));
    if (other) {
      throw new MergeError(
        "capture_duplicate",
        `${module.name} and ${other.name} name the same module`,
        "keep one of the two",
        `${path}: ${module.name}`,
      );
    }
    table.set(captureKey(module.name), module);
  }
  return table;
}

function check(
  { name, inFeatures, form }: PlannedModule,
  table: ReadonlyMap<string, CapturedModule>,
  path: string,
): void {
  if (form?.kind === "embedding") {
    throw new MergeError(
      "capture_embedding",
      `${name} is an embedding, which reads token ids and has no inputs to capture`,
      `leave it out with exclude: ["${name}"], or merge with a method that needs no inputs`,
      name,
    );
  }
  const captured = table.get(captureKey(name));
  if (!captured) {
    const names = [...table.values()].map((module) => module.name);
    throw new MergeError(
      "capture_module_missing",
      `${path} has no inputs of ${name}; ${didYouMean(name, names)}`,
      `record the module's inputs with every adapter, those that lack it too, or leave it out with exclude: ["${name}"]`,
      `${path}: ${name}`,
    );
  }
  if (captured.features === inFeatures) return;
  const kernel = form?.kind === "conv" ? `, channels × kernel [${form.kernel.join(", ")}]` : "";
  throw new MergeError(
    "capture_width",
    `${captured.name} was captured with ${captured.features} features, expected ${inFeatures}${kernel}`,
    form?.kind === "conv"
      ? "record the patches that the kernel reads, as torch.nn.functional.unfold gives them"
      : "record the module's own input, with the base model that the adapter was trained on",
    `${path}: ${captured.name}`,
  );
}
