import { ITERIS_PLUS_DEFAULTS, type IterisPlusOptions, resolveOptions } from "./options.ts";
import type { MergeRequest } from "./request.ts";
import { type Merged, run } from "./run.ts";

/**
 * IterIS with another target: one sweep, unit task weights, and at every module
 *
 *     Y_i = X_i (W0 + W_i)ᵀ − X̃ᵢ W0ᵀ   [ + H_i − H̃ᵢ  where the module writes the residual stream ]
 *     W   = [ Σ_i m_i (Y_iᵀ D_i X̃ᵢ + α n_i W_i) ] [ Σ_i m_i (S_i + α n_i I) ]⁻¹
 *
 * so that each module also undoes what earlier ones changed in its input (drift) and in the residual stream H. W has full rank; it is
 * cut to `rank` by W_r = U Uᵀ W with U the leading eigenvectors of W G Wᵀ. D_i holds the token weights. Without drift, stream and
 * token weights it is {@linkcode iteris} with unit task weights.
 *
 * With output metrics F_i it solves, F̂_i = (1 − γ) F_i / tr F_i · out + γ I,
 *
 *     Σ_i m_i F̂_i W (S_i + α n_i I) = Σ_i m_i F̂_i (Y_iᵀ D_i X̃ᵢ + α n_i W_i)
 *
 * from the W above, and cuts the rank in the norm of G and of F̄ = Σ m_i F̂_i / Σ m_i: with F̄ = L Lᵀ, W_r = L^-T U Uᵀ Lᵀ W, U the
 * leading eigenvectors of Lᵀ W G Wᵀ L. Equal metrics change the cut alone, and identities nothing.
 *
 * @throws {IterisError} as {@linkcode iteris}; `no_answer_tokens`
 */
export async function iterisPlus(request: MergeRequest<IterisPlusOptions>): Promise<Merged> {
  return await run(request, resolveOptions(ITERIS_PLUS_DEFAULTS, request.options));
}
