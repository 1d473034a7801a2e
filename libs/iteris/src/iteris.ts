import { ITERIS_DEFAULTS, type IterisOptions, resolveOptions } from "./options.ts";
import type { MergeRequest } from "./request.ts";
import { type Merged, run } from "./run.ts";

/**
 * IterIS (arXiv 2411.15231): merges adapters by regression on what the base model's modules read on a few samples of each task.
 *
 * At every module it minimises Σ_i c_i ‖X_i W_iᵀ − X̃ᵢ Wᵀ‖²_F with c_i = λ_i m_i, where X_i is the input under adapter i and X̃ᵢ the
 * input under the merged adapter, regularised towards the adapters:
 *
 *     W = [ Σ_i c_i W_i (C_i + α k_i I) ] [ Σ_i c_i (S_i + α n_i I) ]⁻¹
 *
 * with S_i = X̃ᵢᵀX̃ᵢ, C_i = X_iᵀX̃ᵢ (means over tokens), n_i and k_i their Frobenius norms.
 *
 * @throws {IterisError} `invalid_option`, what the tasks are checked for (see `makePlan`), `not_finite_activations`,
 *   `singular_system`
 */
export async function iteris(request: Omit<MergeRequest<IterisOptions>, "metrics">): Promise<Merged> {
  return await run(request, resolveOptions(ITERIS_DEFAULTS, request.options));
}
