/** Layers of each resolution of Stable Diffusion's U-Nets, 1.x to XL. */
const LAYERS_PER_BLOCK = 2;

/** Modules of a residual block: original name to diffusers' name. */
const RESNET_PARTS: Readonly<Record<string, string>> = {
  "in_layers.2": "conv1",
  "emb_layers.1": "time_emb_proj",
  "out_layers.3": "conv2",
  skip_connection: "conv_shortcut",
};

const SINGLE_MODULES: Readonly<Record<string, string>> = {
  "input_blocks.0.0": "conv_in",
  "time_embed.0": "time_embedding.linear_1",
  "time_embed.2": "time_embedding.linear_2",
  "label_emb.0.0": "add_embedding.linear_1",
  "label_emb.0.2": "add_embedding.linear_2",
  "out.2": "conv_out",
};

/**
 * The path of a module of a Stable Diffusion U-Net in diffusers, from its path in the original code, which numbers
 * blocks and layers through: `input_blocks.4.1.proj_in` is `down_blocks.1.attentions.0.proj_in`. Undefined where the
 * path is no original one.
 */
export function unetInDiffusersNames(path: string): string | undefined {
  if (Object.hasOwn(SINGLE_MODULES, path)) return SINGLE_MODULES[path];
  const match = /^(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)$/.exec(path);
  if (match) {
    const [, side, index, part, rest] = match as unknown as [string, string, string, string, string];
    return side === "input_blocks"
      ? downPath(Number(index), Number(part), rest)
      : upPath(Number(index), Number(part), rest);
  }
  const middle = /^middle_block\.([012])\.(.+)$/.exec(path);
  if (!middle) return undefined;
  const [, part, rest] = middle as unknown as [string, string, string];
  return part === "1"
    ? `mid_block.attentions.0.${rest}`
    : resnetPath(`mid_block.resnets.${part === "0" ? 0 : 1}`, rest);
}

function downPath(index: number, part: number, rest: string): string | undefined {
  const block = Math.floor((index - 1) / (LAYERS_PER_BLOCK + 1));
  const layer = (index - 1) % (LAYERS_PER_BLOCK + 1);
  const front = `down_blocks.${block}`;
  if (layer === LAYERS_PER_BLOCK) return rest === "op" ? `${front}.downsamplers.0.conv` : undefined;
  return part === 0 ? resnetPath(`${front}.resnets.${layer}`, rest) : `${front}.attentions.${layer}.${rest}`;
}

function upPath(index: number, part: number, rest: string): string | undefined {
  const block = Math.floor(index / (LAYERS_PER_BLOCK + 1));
  const layer = index % (LAYERS_PER_BLOCK + 1);
  const front = `up_blocks.${block}`;
  if (rest === "conv") return `${front}.upsamplers.0.conv`;
  return part === 0 ? resnetPath(`${front}.resnets.${layer}`, rest) : `${front}.attentions.${layer}.${rest}`;
}

function resnetPath(front: string, rest: string): string | undefined {
  return Object.hasOwn(RESNET_PARTS, rest) ? `${front}.${RESNET_PARTS[rest]}` : undefined;
}
