/** Parts of a diffusion pipeline, as diffusers calls them. */
export const COMPONENTS = [
  "unet",
  "transformer",
  "transformer_2",
  "prior",
  "text_encoder",
  "text_encoder_2",
  "text_encoder_3",
] as const;
export type Component = typeof COMPONENTS[number];

/** First parts of paths in a U-Net, in diffusers' names and in the original ones. */
const UNET_ROOTS = new Set([
  ...["down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out", "time_embedding", "add_embedding"],
  ...["input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "out"],
]);
/** First parts of paths in diffusion transformers. */
const TRANSFORMER_ROOTS = new Set([
  ...["transformer_blocks", "single_transformer_blocks", "x_embedder", "context_embedder", "time_text_embed"],
  ...["double_blocks", "single_blocks", "img_in", "txt_in", "time_in", "vector_in", "guidance_in"],
  ...["final_layer", "joint_blocks", "blocks", "noise_refiner", "context_refiner", "norm_out", "proj_out"],
  ...["patch_embedding", "condition_embedder", "distilled_guidance_layer", "cap_embedder", "t_embedder"],
]);

/** A module's name split into the pipeline's component, where it has one in front, and the path inside. */
export function splitComponent(name: string): { component: Component | undefined; path: string } {
  const dot = name.indexOf(".");
  const first = name.slice(0, Math.max(dot, 0)) as Component;
  // `transformer.h.0` is GPT-2, whose own first part happens to have a component's name.
  const isComponent = COMPONENTS.includes(first) && !/^transformer\.(h|wte|wpe)\b/.test(name);
  return isComponent ? { component: first, path: name.slice(dot + 1) } : { component: undefined, path: name };
}

/** The component that a path without one is of, judged by its first part; undefined for language models. */
export function inferComponent(path: string): Component | undefined {
  const root = path.split(".")[0];
  if (UNET_ROOTS.has(root!)) return "unet";
  if (TRANSFORMER_ROOTS.has(root!)) return "transformer";
  if (root === "text_model") return "text_encoder";
  // Lumina and Z-Image, whose layers have other parts than those of language models.
  const isLumina = /^layers\.\d+\.(attention|feed_forward|adaLN_modulation)\./.test(path);
  return isLumina ? "transformer" : undefined;
}

/** The component of a name, written or inferred, and the path inside. */
export function locate(name: string): { component: Component | undefined; path: string } {
  const split = splitComponent(name);
  return split.component ? split : { component: inferComponent(name), path: name };
}

/** The components that names have in front. */
export function componentsOf(names: Iterable<string>): Set<Component> {
  return new Set([...names].flatMap((name) => splitComponent(name).component ?? []));
}
