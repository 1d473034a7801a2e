import { splitComponent } from "./components.ts";
import { unetInDiffusersNames } from "./unet.ts";

/** How a module of a model's original code is called in diffusers. `{n}` is the number of the block. */
export interface NameRule {
  readonly original: string;
  /** One name, or the names of the parts that diffusers splits the module into, in the order of its rows. */
  readonly diffusers: string | readonly string[];
  /** The two halves of the rows, scale and shift, have changed places. */
  readonly swapsHalves?: true;
}

/** The transformers whose modules have other names in diffusers than in their original code. */
export type Family = "flux" | "sd3" | "wan";

const qkv = (attention: string) => ["to_q", "to_k", "to_v"].map((part) => `${attention}.${part}`);
const added = (attention: string) =>
  ["add_q_proj", "add_k_proj", "add_v_proj"].map((part) => `${attention}.${part}`);
const rule = (original: string, diffusers: string | readonly string[]): NameRule => ({ original, diffusers });
const swapped = (original: string, diffusers: string): NameRule => ({
  original,
  diffusers,
  swapsHalves: true,
});

const TIME = "time_text_embed";

const FLUX: readonly NameRule[] = [
  rule("double_blocks.{n}.img_attn.qkv", qkv("transformer_blocks.{n}.attn")),
  rule("double_blocks.{n}.txt_attn.qkv", added("transformer_blocks.{n}.attn")),
  rule("double_blocks.{n}.img_attn.proj", "transformer_blocks.{n}.attn.to_out.0"),
  rule("double_blocks.{n}.txt_attn.proj", "transformer_blocks.{n}.attn.to_add_out"),
  rule("double_blocks.{n}.img_mlp.0", "transformer_blocks.{n}.ff.net.0.proj"),
  rule("double_blocks.{n}.img_mlp.2", "transformer_blocks.{n}.ff.net.2"),
  rule("double_blocks.{n}.txt_mlp.0", "transformer_blocks.{n}.ff_context.net.0.proj"),
  rule("double_blocks.{n}.txt_mlp.2", "transformer_blocks.{n}.ff_context.net.2"),
  rule("double_blocks.{n}.img_mod.lin", "transformer_blocks.{n}.norm1.linear"),
  rule("double_blocks.{n}.txt_mod.lin", "transformer_blocks.{n}.norm1_context.linear"),
  rule("single_blocks.{n}.linear1", [
    ...qkv("single_transformer_blocks.{n}.attn"),
    "single_transformer_blocks.{n}.proj_mlp",
  ]),
  rule("single_blocks.{n}.linear2", "single_transformer_blocks.{n}.proj_out"),
  rule("single_blocks.{n}.modulation.lin", "single_transformer_blocks.{n}.norm.linear"),
  rule("img_in", "x_embedder"),
  rule("txt_in", "context_embedder"),
  rule("time_in.in_layer", `${TIME}.timestep_embedder.linear_1`),
  rule("time_in.out_layer", `${TIME}.timestep_embedder.linear_2`),
  rule("vector_in.in_layer", `${TIME}.text_embedder.linear_1`),
  rule("vector_in.out_layer", `${TIME}.text_embedder.linear_2`),
  rule("guidance_in.in_layer", `${TIME}.guidance_embedder.linear_1`),
  rule("guidance_in.out_layer", `${TIME}.guidance_embedder.linear_2`),
  rule("final_layer.linear", "proj_out"),
  swapped("final_layer.adaLN_modulation.1", "norm_out.linear"),
];

const SD3: readonly NameRule[] = [
  rule("joint_blocks.{n}.x_block.attn.qkv", qkv("transformer_blocks.{n}.attn")),
  rule("joint_blocks.{n}.x_block.attn2.qkv", qkv("transformer_blocks.{n}.attn2")),
  rule("joint_blocks.{n}.context_block.attn.qkv", added("transformer_blocks.{n}.attn")),
  rule("joint_blocks.{n}.x_block.attn.proj", "transformer_blocks.{n}.attn.to_out.0"),
  rule("joint_blocks.{n}.x_block.attn2.proj", "transformer_blocks.{n}.attn2.to_out.0"),
  rule("joint_blocks.{n}.context_block.attn.proj", "transformer_blocks.{n}.attn.to_add_out"),
  rule("joint_blocks.{n}.x_block.mlp.fc1", "transformer_blocks.{n}.ff.net.0.proj"),
  rule("joint_blocks.{n}.x_block.mlp.fc2", "transformer_blocks.{n}.ff.net.2"),
  rule("joint_blocks.{n}.context_block.mlp.fc1", "transformer_blocks.{n}.ff_context.net.0.proj"),
  rule("joint_blocks.{n}.context_block.mlp.fc2", "transformer_blocks.{n}.ff_context.net.2"),
  rule("joint_blocks.{n}.x_block.adaLN_modulation.1", "transformer_blocks.{n}.norm1.linear"),
  rule("x_embedder.proj", "pos_embed.proj"),
  rule("t_embedder.mlp.0", `${TIME}.timestep_embedder.linear_1`),
  rule("t_embedder.mlp.2", `${TIME}.timestep_embedder.linear_2`),
  rule("y_embedder.mlp.0", `${TIME}.text_embedder.linear_1`),
  rule("y_embedder.mlp.2", `${TIME}.text_embedder.linear_2`),
  rule("final_layer.linear", "proj_out"),
  swapped("final_layer.adaLN_modulation.1", "norm_out.linear"),
];

/** The last block's context has no feed-forward, and its two chunks of modulation are swapped in diffusers. */
const SD3_CONTEXT = rule(
  "joint_blocks.{n}.context_block.adaLN_modulation.1",
  "transformer_blocks.{n}.norm1_context.linear",
);

const attention = (original: string, diffusers: string): NameRule[] => [
  ...["q", "k", "v"].map((part) => rule(`${original}.${part}`, `${diffusers}.to_${part}`)),
  rule(`${original}.o`, `${diffusers}.to_out.0`),
];
const WAN: readonly NameRule[] = [
  ...attention("blocks.{n}.self_attn", "blocks.{n}.attn1"),
  ...attention("blocks.{n}.cross_attn", "blocks.{n}.attn2"),
  rule("blocks.{n}.cross_attn.k_img", "blocks.{n}.attn2.add_k_proj"),
  rule("blocks.{n}.cross_attn.v_img", "blocks.{n}.attn2.add_v_proj"),
  rule("blocks.{n}.ffn.0", "blocks.{n}.ffn.net.0.proj"),
  rule("blocks.{n}.ffn.2", "blocks.{n}.ffn.net.2"),
];

const RULES: Readonly<Record<Family, readonly NameRule[]>> = { flux: FLUX, sd3: SD3, wan: WAN };

/** Which names an adapter uses, as far as its family has two kinds. */
export interface Scheme {
  readonly family: Family;
  readonly names: "original" | "diffusers";
}

const SIGNS: readonly (readonly [pattern: RegExp, scheme: Scheme])[] = [
  [/^(double_blocks\.\d+\.(img|txt)_(attn|mlp|mod)\.|single_blocks\.\d+\.(linear[12]|modulation\.lin)$)/, {
    family: "flux",
    names: "original",
  }],
  [/^single_transformer_blocks\./, { family: "flux", names: "diffusers" }],
  [/^joint_blocks\./, { family: "sd3", names: "original" }],
  [/^blocks\.\d+\.((self|cross)_attn\.([qkvo]|[kv]_img)|ffn\.[02])$/, { family: "wan", names: "original" }],
  [/^blocks\.\d+\.(attn[12]\.(to_|add_)|ffn\.net\.)/, { family: "wan", names: "diffusers" }],
];

/** The scheme of an adapter by the names of its modules; undefined where nothing tells. */
export function schemeOf(names: Iterable<string>): Scheme | undefined {
  const paths = [...names].map((name) => splitComponent(name).path);
  for (const [pattern, scheme] of SIGNS) if (paths.some((path) => pattern.test(path))) return scheme;
  return undefined;
}

/** A name and the rule that it follows, with the block's number put in. */
export interface MatchedRule {
  readonly original: string;
  readonly diffusers: readonly string[];
  readonly swapsHalves: boolean;
}

/**
 * The rule of a module in the original names of a family.
 *
 * @param isShort whether the module has twice as many outputs as inputs, which tells SD3's last block
 */
export function ruleForOriginal(family: Family, path: string, isShort: boolean): MatchedRule | undefined {
  const { pattern, number } = withoutNumber(path);
  if (family === "sd3" && pattern === SD3_CONTEXT.original) {
    return fill({ ...SD3_CONTEXT, ...(isShort ? { swapsHalves: true } : {}) }, number);
  }
  const found = RULES[family].find(({ original }) => original === pattern);
  return found && fill(found, number);
}

/** The rule of a module in the names of diffusers. */
export function ruleForDiffusers(family: Family, path: string, isShort: boolean): MatchedRule | undefined {
  const { pattern, number } = withoutNumber(path);
  if (family === "sd3" && pattern === SD3_CONTEXT.diffusers) {
    return fill({ ...SD3_CONTEXT, ...(isShort ? { swapsHalves: true } : {}) }, number);
  }
  const found = RULES[family].find(({ diffusers }) => [diffusers].flat().includes(pattern));
  return found && fill(found, number);
}

/** The name of a U-Net's module in diffusers; undefined where it has it already, or none. */
export function inDiffusersNames(name: string): string | undefined {
  const { component, path } = splitComponent(name);
  if (component !== undefined && component !== "unet") return undefined;
  const renamed = unetInDiffusersNames(path);
  return renamed === undefined ? undefined : `unet.${renamed}`;
}

function withoutNumber(path: string): { pattern: string; number: string } {
  const match = /\.(\d+)\./.exec(path);
  if (!match) return { pattern: path, number: "" };
  const { index } = match;
  return { pattern: `${path.slice(0, index)}.{n}.${path.slice(index + match[0].length)}`, number: match[1]! };
}

function fill({ original, diffusers, swapsHalves }: NameRule, number: string): MatchedRule {
  const put = (pattern: string) => pattern.replace("{n}", number);
  return {
    original: put(original),
    diffusers: [diffusers].flat().map(put),
    swapsHalves: swapsHalves ?? false,
  };
}
