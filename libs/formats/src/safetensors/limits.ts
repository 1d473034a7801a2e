/** What a header may ask of the reader. */
export interface SafetensorsLimits {
  /** Bytes of the JSON header; the reference implementation allows 100,000,000. */
  readonly maxHeaderBytes: number;
  readonly maxTensors: number;
  /** Dimensions of one tensor. */
  readonly maxDimensions: number;
}

export const DEFAULT_LIMITS: SafetensorsLimits = {
  maxHeaderBytes: 100_000_000,
  maxTensors: 1_000_000,
  maxDimensions: 64,
};
