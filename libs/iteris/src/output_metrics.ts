import type { Tensor } from "@lora-loom/tensor";

/**
 * How much the outputs of each module matter to a task: F_i = Σ_t g_t g_tᵀ over gradients g_t at the module's output, of the log-likelihood
 * of answers drawn from the model itself. That is the output half of a Kronecker-factored Fisher matrix (K-FAC, arXiv 1503.05671).
 */
export interface OutputMetrics {
  /**
   * F_i at a module, `[out, out]`, as symmetric blocks along its diagonal, one below the other, `[out, size]`: the whole matrix where the size
   * is `out`. The last block may have fewer rows; zeros then follow its columns. What lies outside of the blocks counts as zero. The scale does
   * not matter. The tensor is on the request's device, and whoever asks disposes it.
   *
   * @param outputs `out`
   */
  blocks(task: number, module: string, outputs: number): Promise<Tensor>;
}
