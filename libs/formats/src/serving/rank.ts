/** The values of vLLM's `max_lora_rank`. */
const SERVED_RANKS: readonly number[] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/** The smallest rank of vLLM's list that holds `rank`; `rank` itself beyond the list. Padding with zeros changes no ΔW. */
export function servingRank(rank: number): number {
  return SERVED_RANKS.find((served) => served >= rank) ?? rank;
}
