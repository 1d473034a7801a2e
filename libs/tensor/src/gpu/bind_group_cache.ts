import type { PooledBuffer } from "./buffer_pool.ts";
import type { Pipeline } from "./pipeline_cache.ts";

/** A stretch of a buffer that a kernel binds. */
export interface Binding {
  readonly pooled: PooledBuffer;
  /** In bytes. */
  readonly offset: number;
  readonly size: number;
}

/**
 * Groups that are kept at most. They hold no memory of their own, nor do they keep that of destroyed buffers. Enough for all that a
 * layer of a large model binds: what is forgotten is garbage, thousands of whose finalizers the runtime runs while everything waits.
 */
const MOST_GROUPS = 2 ** 15;

/**
 * Bind groups by kernel and bindings. Loops bind the same buffers again and again, since the pool hands them out again, and making
 * a group takes longer than all the rest of a dispatch.
 */
export class BindGroupCache {
  readonly #groups = new Map<string, GPUBindGroup>();

  constructor(readonly device: GPUDevice) {}

  /**
   * @param parameters what is bound after the buffers, the same each time for a pipeline
   */
  get(
    { id, layout }: Pipeline,
    bindings: readonly Binding[],
    parameters: GPUBufferBinding | undefined,
  ): GPUBindGroup {
    let key = String(id);
    for (const { pooled, offset, size } of bindings) key += `|${pooled.id},${offset},${size}`;
    const known = this.#groups.get(key);
    if (known) return known;
    if (this.#groups.size >= MOST_GROUPS) this.#groups.clear();
    const resources: GPUBufferBinding[] = bindings.map(({ pooled, offset, size }) => ({
      buffer: pooled.buffer,
      offset,
      size,
    }));
    const group = this.device.createBindGroup({
      layout,
      entries: [...resources, ...parameters ? [parameters] : []].map((resource, binding) => ({
        binding,
        resource,
      })),
    });
    this.#groups.set(key, group);
    return group;
  }
}
