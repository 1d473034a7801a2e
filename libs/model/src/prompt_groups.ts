import type { Device, GpuDevice } from "@lora-loom/tensor";
import type { DecoderConfig } from "./config.ts";
import { bytesPerParameter } from "./residency.ts";

/** How much of a batch a device can bind at once. */
export interface RowLimits {
  /** Token rows of the widest activations. */
  readonly tokens: number;
  /** Rows of logits. */
  readonly prompts: number;
}

/** Within limits, as many token rows as have keys and values of so many bytes. */
export function withKeyValueBytes(
  limits: RowLimits,
  { device, config }: {
    readonly device: Device;
    readonly config: Pick<DecoderConfig, "layers" | "keyValueHeads" | "headDim">;
  },
  bytes: number,
): RowLimits {
  const perRow = bytesPerParameter(device) * config.layers * 2 * config.keyValueHeads * config.headDim;
  return { ...limits, tokens: Math.min(limits.tokens, Math.floor(bytes / perRow)) };
}

/** What a model's device can bind of its activations. */
export function rowLimits({ device, config }: {
  readonly device: Device;
  readonly config: Pick<
    DecoderConfig,
    "mlpSize" | "queryHeads" | "headDim" | "hiddenSize" | "vocabularySize"
  >;
}): RowLimits {
  if (device.info.backend === "cpu") return { tokens: Infinity, prompts: Infinity };
  const { maxBindingBytes } = (device as GpuDevice).limits;
  const widest = Math.max(config.mlpSize, config.queryHeads * config.headDim, config.hiddenSize);
  return {
    tokens: Math.floor(maxBindingBytes / (4 * widest)),
    prompts: Math.floor(maxBindingBytes / (4 * config.vocabularySize)),
  };
}

/**
 * Splits prompts, in order, into groups within the limits, counting `maxNewTokens` rows with every prompt. A prompt that
 * exceeds them alone is a group of its own.
 */
export function promptGroups(
  prompts: readonly Uint32Array[],
  maxNewTokens: number,
  limits: RowLimits,
): readonly (readonly Uint32Array[])[] {
  const groups: Uint32Array[][] = [];
  let rows = Infinity;
  for (const prompt of prompts) {
    const more = prompt.length + maxNewTokens;
    const group = groups.at(-1);
    if (!group || rows + more > limits.tokens || group.length >= limits.prompts) {
      groups.push([prompt]);
      rows = more;
    } else {
      group.push(prompt);
      rows += more;
    }
  }
  return groups;
}
