/** Sizes of one linear module: its weight is [out, in]. */
export interface LinearShape {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

const HIDDEN = 4096;
const INTERMEDIATE = 11008;

/** The seven linear modules of each layer of Llama-2-7B; it has 32 layers. */
export function llama7bModules(layers: number): LinearShape[] {
  return Array.from({ length: layers }, (_, layer) => [
    ...["q", "k", "v", "o"].map((head) => ({
      name: `model.layers.${layer}.self_attn.${head}_proj`,
      inFeatures: HIDDEN,
      outFeatures: HIDDEN,
    })),
    ...["gate", "up"].map((half) => ({
      name: `model.layers.${layer}.mlp.${half}_proj`,
      inFeatures: HIDDEN,
      outFeatures: INTERMEDIATE,
    })),
    { name: `model.layers.${layer}.mlp.down_proj`, inFeatures: INTERMEDIATE, outFeatures: HIDDEN },
  ]).flat();
}
