/** What a merge that runs the base model needs, in bytes, as far as it can be known before. */
export interface MemoryNeeds {
  /** Most that tensors take on the device at once. */
  readonly device_bytes: number;
  /** Most that the process takes of host memory; tensors included where the device computes in it. */
  readonly host_bytes: number;
  /** Most that waits in temporary files. */
  readonly scratch_bytes: number;
  /** What is read from the base model's files, all passes together. */
  readonly read_bytes: number;
  /** What the device's bytes are made of at their peak. */
  readonly device_parts: Readonly<Record<string, number>>;
}
