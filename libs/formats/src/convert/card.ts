import type { Adapter } from "../adapter.ts";
import type { OutputFormat } from "../create_adapter_writer.ts";

/** What a conversion did, as far as its card tells. */
export interface CardFacts {
  readonly source: Adapter;
  readonly format: OutputFormat;
  readonly dtype: string;
  readonly rank: number;
  readonly modules: number;
  readonly hash: string;
  readonly warnings: readonly string[];
}

/** A model card: front matter for the hub, then where the adapter came from. */
export function conversionCard({ source, format, dtype, rank, modules, hash, warnings }: CardFacts): string {
  const base = source.baseModel;
  return [
    "---",
    ...(base === undefined ? [] : [`base_model: ${JSON.stringify(base)}`]),
    "tags: [lora]",
    "---",
    "",
    `# ${source.name}`,
    "",
    `A LoRA adapter of ${modules} modules, rank ${rank}, converted by LoRA Loom from the layout ${source.format} to ` +
    `${format} (${dtype}). No ΔW was changed beyond the rounding of ${dtype}.`,
    "",
    `Source: \`${source.name}\`, weights with sha256 \`${hash}\`.`,
    ...(warnings.length === 0 ? [] : ["", "Notes:", "", ...warnings.map((warning) => `- ${warning}`)]),
    "",
  ].join("\n");
}
