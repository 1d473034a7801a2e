import type { Adapter, Warning } from "../adapter.ts";
import type { OutputFormat } from "../create_adapter_writer.ts";
import { FormatError } from "../errors.ts";
import { renamed, withModules } from "../fusion/renamed.ts";
import { inDiffusersScheme, inOriginalScheme } from "../fusion/schemes.ts";
import { componentsOf, locate, splitComponent } from "../names/components.ts";
import { inDiffusersNames } from "../names/schemes.ts";

/**
 * The adapter with the names that a layout's readers expect: diffusers' in PEFT and diffusers files, those of the models'
 * own code in kohya's and ComfyUI's, and language models only in MLX and GGUF.
 *
 * @throws {FormatError} `names_unknown`, `component_unsupported`, `no_diffusers_name`, `no_original_name`, `cannot_split`,
 * `cannot_fuse`
 */
export async function inNamesOf(format: OutputFormat, adapter: Adapter): Promise<Adapter> {
  if (format === adapter.format) return adapter;
  refusePositions(adapter);
  switch (format) {
    case "kohya":
      return await inOriginalScheme(adapter);
    case "original":
      refuseFlattened(adapter);
      refuseDiffusersUnets(adapter);
      return await inOriginalScheme(adapter);
    case "diffusers":
      refuseFlattened(adapter);
      return await inDiffusersScheme(adapter);
    case "peft":
      refuseFlattened(adapter);
      return inOneComponent(await inDiffusersScheme(adapter));
    case "mlx":
    case "gguf":
      refuseFlattened(adapter);
      refuseDenoisers(adapter, format);
      return inOneComponent(adapter);
  }
}

/** Without the component in front, where all modules are of one; adapters of single models have none. */
function inOneComponent(adapter: Adapter): Adapter {
  const components = componentsOf(adapter.modules.keys());
  if (components.size === 0) return adapter;
  const modules = [...adapter.modules.values()];
  if (components.size > 1) return withModules(adapter, modules, [several(adapter)]);
  return withModules(adapter, modules.map((module) => renamed(module, splitComponent(module.name).path)));
}

function several({ path }: Adapter): Warning {
  return {
    code: "several_components",
    message: "the adapter is of several models of a pipeline, which keep their names in front: PEFT loads " +
      "adapters of one model, so convert a part at a time (--drop 'text_encoder*')",
    where: path,
  };
}

function refusePositions(adapter: Adapter): void {
  const positional = [...adapter.modules.keys()].find((name) => /^(unet|text_encoder):\d+$/.test(name));
  if (positional === undefined) return;
  throw new FormatError(
    "names_unknown",
    `${positional} is known by its position only, and the shapes are not those of Stable Diffusion 1.x`,
    "Convert the file with the scripts of its own project, which have the model.",
    `${adapter.path} ${positional}`,
  );
}

function refuseFlattened(adapter: Adapter): void {
  const flattened = [...adapter.modules.values()].find(({ isFlattened }) => isFlattened);
  if (!flattened) return;
  throw new FormatError(
    "names_unknown",
    `where the dots of ${flattened.name} are is not known`,
    "Add --base DIR, the base model's folder: its weights have the names. Merges write kohya files without it.",
    `${adapter.path} ${flattened.name}`,
  );
}

/** Nothing loads a U-Net in diffusers' names behind `diffusion_model.`. */
function refuseDiffusersUnets(adapter: Adapter): void {
  const refused = [...adapter.modules.keys()].find((name) =>
    locate(name).component === "unet" && inDiffusersNames(name) === undefined
  );
  if (refused === undefined) return;
  throw new FormatError(
    "no_original_name",
    `${refused} is of a U-Net in diffusers' names, which the layout of original names does not know`,
    "Choose kohya, which takes these names, or diffusers.",
    `${adapter.path} ${refused}`,
  );
}

function refuseDenoisers(adapter: Adapter, format: OutputFormat): void {
  const isDenoiser = (name: string) => {
    const { component } = locate(name);
    return component !== undefined && !component.startsWith("text_encoder");
  };
  const refused = [...adapter.modules.keys()].find(isDenoiser);
  if (refused === undefined) return;
  throw new FormatError(
    "component_unsupported",
    `${refused} is a module of an image or video model; ${format} holds adapters of language models`,
    "Choose kohya, diffusers, original or peft.",
    `${adapter.path} ${refused}`,
  );
}
