/** Adapters of image and video models at their real shapes, under the names that trainers give them. */

/** A weight's shape: [out, in], or [out, in, kernel height, kernel width]. */
export type Shape = readonly [outFeatures: number, inFeatures: number, ...kernel: number[]];

/** One kind of adapter file. */
export interface AdapterKind {
  readonly model: string;
  /** The layout that it is in. */
  readonly format: "kohya" | "original";
  /** Endings of A, B and, where the files have it, alpha. */
  readonly endings: readonly [a: string, b: string, alpha?: string];
  /** Fronts of its keys, and the shapes of the weights that they are of. */
  readonly modules: ReadonlyMap<string, Shape>;
}

const KOHYA = [".lora_down.weight", ".lora_up.weight", ".alpha"] as const;
const PEFT = [".lora_A.weight", ".lora_B.weight"] as const;

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

/** A transformer in a U-Net: its projections, and its blocks of attention and feed-forward. */
function unetTransformer(
  front: string,
  width: number,
  context: number,
  depth: number,
  projection: readonly number[],
): [string, Shape][] {
  const block = (n: number): [string, Shape][] =>
    [
      ...["to_q", "to_k", "to_v", "to_out_0"].map((
        part,
      ): [string, Shape] => [`attn1_${part}`, [width, width]]),
      ...["to_q", "to_out_0"].map((part): [string, Shape] => [`attn2_${part}`, [width, width]]),
      ...["to_k", "to_v"].map((part): [string, Shape] => [`attn2_${part}`, [width, context]]),
      ["ff_net_0_proj", [8 * width, width]],
      ["ff_net_2", [width, 4 * width]],
    ].map(([part, shape]) => [`${front}_transformer_blocks_${n}_${part}`, shape] as [string, Shape]);
  return [
    [`${front}_proj_in`, [width, width, ...projection]],
    [`${front}_proj_out`, [width, width, ...projection]],
    ...range(depth).flatMap(block),
  ];
}

/** Width of Stable Diffusion's time embedding. */
const TIME = 1280;

function resnet(front: string, from: number, to: number): [string, Shape][] {
  return [
    [`${front}_conv1`, [to, from, 3, 3]],
    [`${front}_conv2`, [to, to, 3, 3]],
    [`${front}_time_emb_proj`, [to, TIME]],
    ...(from === to ? [] : [[`${front}_conv_shortcut`, [to, from, 1, 1]] as [string, Shape]]),
  ];
}

/** Stable Diffusion 1.5, convolutions included. */
function stableDiffusion15(): Map<string, Shape> {
  const down = [[320, 320], [320, 640], [640, 1280], [1280, 1280]] as const;
  const up = [[2560, 2560, 2560], [2560, 2560, 1920], [1920, 1280, 960], [960, 640, 640]];
  const upWidths = [1280, 1280, 640, 320];
  const attention = (front: string, width: number) => unetTransformer(front, width, 768, 1, [1, 1]);
  const modules = [
    ...down.flatMap(([from, to], block) => [
      ...range(2).flatMap((n) => resnet(`down_blocks_${block}_resnets_${n}`, n === 0 ? from : to, to)),
      ...(block < 3 ? range(2).flatMap((n) => attention(`down_blocks_${block}_attentions_${n}`, to)) : []),
      ...(block < 3 ? [[`down_blocks_${block}_downsamplers_0_conv`, [to, to, 3, 3]] as [string, Shape]] : []),
    ]),
    ...range(2).flatMap((n) => resnet(`mid_block_resnets_${n}`, 1280, 1280)),
    ...attention("mid_block_attentions_0", 1280),
    ...up.flatMap((inputs, block) => {
      const to = upWidths[block]!;
      return [
        ...inputs.flatMap((from, n) => resnet(`up_blocks_${block}_resnets_${n}`, from, to)),
        ...(block > 0 ? range(3).flatMap((n) => attention(`up_blocks_${block}_attentions_${n}`, to)) : []),
        ...(block < 3 ? [[`up_blocks_${block}_upsamplers_0_conv`, [to, to, 3, 3]] as [string, Shape]] : []),
      ];
    }),
  ];
  return withPrefix("lora_unet_", modules);
}

/** The attention blocks of Stable Diffusion XL. */
function stableDiffusionXl(): Map<string, Shape> {
  const at = (front: string, width: number, depth: number) => unetTransformer(front, width, 2048, depth, []);
  return withPrefix("lora_unet_", [
    ...range(2).flatMap((n) => at(`down_blocks_1_attentions_${n}`, 640, 2)),
    ...range(2).flatMap((n) => at(`down_blocks_2_attentions_${n}`, 1280, 10)),
    ...at("mid_block_attentions_0", 1280, 10),
    ...range(3).flatMap((n) => at(`up_blocks_0_attentions_${n}`, 1280, 10)),
    ...range(3).flatMap((n) => at(`up_blocks_1_attentions_${n}`, 640, 2)),
  ]);
}

function flux(): Map<string, Shape> {
  const width = 3072;
  const stream = (name: string): [string, Shape][] => [
    [`${name}_attn_proj`, [width, width]],
    [`${name}_attn_qkv`, [3 * width, width]],
    [`${name}_mlp_0`, [4 * width, width]],
    [`${name}_mlp_2`, [width, 4 * width]],
    [`${name}_mod_lin`, [6 * width, width]],
  ];
  const single: [string, Shape][] = [
    ["linear1", [7 * width, width]],
    ["linear2", [width, 5 * width]],
    ["modulation_lin", [3 * width, width]],
  ];
  return withPrefix("lora_unet_", [
    ...range(19).flatMap((n) => numbered(`double_blocks_${n}_`, [...stream("img"), ...stream("txt")])),
    ...range(38).flatMap((n) => numbered(`single_blocks_${n}_`, single)),
  ]);
}

function wan(): Map<string, Shape> {
  const [width, hidden] = [5120, 13824];
  const block: [string, Shape][] = [
    ...["self_attn", "cross_attn"].flatMap((attention) =>
      ["k", "o", "q", "v"].map((part): [string, Shape] => [`${attention}.${part}`, [width, width]])
    ),
    ["ffn.0", [hidden, width]],
    ["ffn.2", [width, hidden]],
  ];
  return withPrefix("diffusion_model.", range(40).flatMap((n) => numbered(`blocks.${n}.`, block)));
}

function qwenImage(): Map<string, Shape> {
  const width = 3072;
  const attention = [
    "add_k_proj",
    "add_q_proj",
    "add_v_proj",
    "to_add_out",
    "to_k",
    "to_out.0",
    "to_q",
    "to_v",
  ];
  const block: [string, Shape][] = [
    ...attention.map((part): [string, Shape] => [`attn.${part}`, [width, width]]),
    ...["img_mlp", "txt_mlp"].flatMap((mlp): [string, Shape][] => [
      [`${mlp}.net.0.proj`, [4 * width, width]],
      [`${mlp}.net.2`, [width, 4 * width]],
    ]),
  ];
  return new Map(range(60).flatMap((n) => numbered(`transformer_blocks.${n}.`, block)));
}

function zImage(): Map<string, Shape> {
  const [width, hidden] = [3840, 10240];
  const layer: [string, Shape][] = [
    ["adaLN_modulation.0", [4 * width, 256]],
    ...["to_k", "to_out.0", "to_q", "to_v"].map((
      part,
    ): [string, Shape] => [`attention.${part}`, [width, width]]),
    ["feed_forward.w1", [hidden, width]],
    ["feed_forward.w2", [width, hidden]],
    ["feed_forward.w3", [hidden, width]],
  ];
  return withPrefix("diffusion_model.", range(30).flatMap((n) => numbered(`layers.${n}.`, layer)));
}

function numbered(front: string, modules: readonly [string, Shape][]): [string, Shape][] {
  return modules.map(([name, shape]) => [front + name, shape]);
}

function withPrefix(prefix: string, modules: readonly [string, Shape][]): Map<string, Shape> {
  return new Map(numbered(prefix, modules));
}

export const ADAPTER_KINDS: readonly AdapterKind[] = [
  { model: "sd_1_5", format: "kohya", endings: KOHYA, modules: stableDiffusion15() },
  { model: "sdxl", format: "kohya", endings: KOHYA, modules: stableDiffusionXl() },
  { model: "flux", format: "kohya", endings: KOHYA, modules: flux() },
  { model: "wan_2_2", format: "original", endings: PEFT, modules: wan() },
  { model: "qwen_image_edit", format: "original", endings: KOHYA, modules: qwenImage() },
  { model: "zImage", format: "original", endings: PEFT, modules: zImage() },
];
