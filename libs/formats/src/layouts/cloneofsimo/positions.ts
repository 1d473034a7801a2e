import type { LoraModule } from "../../adapter.ts";

/**
 * A Stable Diffusion 1.x adapter's modules under their names. cloneofsimo's code walks the attention blocks in the order
 * in which the model's constructor makes them (down, up, middle), and in each block the first attention, the
 * feed-forward's gate, the second attention. Only where every module is there and every shape is as it must be at its
 * place is the order taken for certain.
 */
export function nameByPosition(
  modules: ReadonlyMap<string, LoraModule>,
): Map<string, LoraModule> | undefined {
  const places = new Map([...unetPlaces(), ...textEncoderPlaces()]);
  const components = new Set([...modules.keys()].map((position) => position.split(":")[0]!));
  const expected = [...places.keys()].filter((position) => components.has(position.split(":")[0]!));
  if (expected.length !== modules.size) return undefined;
  const named = new Map<string, LoraModule>();
  for (const position of expected) {
    const module = modules.get(position);
    const place = places.get(position)!;
    if (!module || module.inFeatures !== place.inFeatures || module.outFeatures !== place.outFeatures) {
      return undefined;
    }
    named.set(place.name, { ...module, name: place.name });
  }
  return new Map([...named].sort(([a], [b]) => (a < b ? -1 : 1)));
}

interface Place {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** Width of the text that Stable Diffusion 1.x attends to, which is that of its text encoder. */
const TEXT_WIDTH = 768;
const ENCODER_LAYERS = 12;

/** Attention blocks of the U-Net, in the order of construction, with their width. */
const BLOCKS: readonly (readonly [path: string, width: number])[] = [
  ...[0, 1].map((i) => [`down_blocks.0.attentions.${i}`, 320] as const),
  ...[0, 1].map((i) => [`down_blocks.1.attentions.${i}`, 640] as const),
  ...[0, 1].map((i) => [`down_blocks.2.attentions.${i}`, 1280] as const),
  ...[0, 1, 2].map((i) => [`up_blocks.1.attentions.${i}`, 1280] as const),
  ...[0, 1, 2].map((i) => [`up_blocks.2.attentions.${i}`, 640] as const),
  ...[0, 1, 2].map((i) => [`up_blocks.3.attentions.${i}`, 320] as const),
  ["mid_block.attentions.0", 1280],
];

function unetPlaces(): [position: string, place: Place][] {
  return BLOCKS.flatMap(([block, width]) => blockPlaces(`unet.${block}.transformer_blocks.0`, width))
    .map((place, index) => [`unet:${index}`, place]);
}

function blockPlaces(block: string, width: number): Place[] {
  const place = (path: string, inFeatures: number, outFeatures = width): Place => ({
    name: `${block}.${path}`,
    inFeatures,
    outFeatures,
  });
  return [
    ...["to_q", "to_k", "to_v", "to_out.0"].map((part) => place(`attn1.${part}`, width)),
    place("ff.net.0.proj", width, 8 * width),
    place("attn2.to_q", width),
    place("attn2.to_k", TEXT_WIDTH),
    place("attn2.to_v", TEXT_WIDTH),
    place("attn2.to_out.0", width),
  ];
}

function textEncoderPlaces(): [position: string, place: Place][] {
  return Array.from(
    { length: ENCODER_LAYERS },
    (_, layer) =>
      ["k_proj", "v_proj", "q_proj", "out_proj"].map((part): Place => ({
        name: `text_encoder.text_model.encoder.layers.${layer}.self_attn.${part}`,
        inFeatures: TEXT_WIDTH,
        outFeatures: TEXT_WIDTH,
      })),
  ).flat().map((place, index) => [`text_encoder:${index}`, place]);
}
