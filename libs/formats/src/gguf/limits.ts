/** What a GGUF header may ask of the reader. */
export interface GgufLimits {
  /** Bytes of the whole header: values and descriptions of tensors. */
  readonly maxHeaderBytes: number;
  readonly maxTensors: number;
  readonly maxValues: number;
}

export const DEFAULT_LIMITS: GgufLimits = {
  maxHeaderBytes: 100_000_000,
  maxTensors: 1_000_000,
  maxValues: 100_000,
};

/** ggml's tensors have at most four dimensions. */
export const MAX_DIMENSIONS = 4;
