import { compressThenMerge } from "./compress_then_merge.ts";
import { coreSpace } from "./core_space.ts";
import { dareLinear, dareLinearSvd, dareTies, dareTiesSvd } from "./dare.ts";
import { della } from "./della.ts";
import { isoC, isoCts } from "./iso.ts";
import { knots } from "./knots.ts";
import { lines } from "./lines.ts";
import { magnitudePrune, magnitudePruneSvd } from "./magnitude_prune.ts";
import type { ModuleMethod } from "./method.ts";
import { modelStock } from "./model_stock.ts";
import { npLora } from "./np_lora.ts";
import { pico } from "./pico.ts";
import { robustMerge } from "./robust_merge.ts";
import { ties, tiesSvd } from "./ties.ts";
import { tsvM } from "./tsv_m.ts";

/** The methods that need nothing but the adapters: first those that PEFT has, then the others. */
export const DATA_FREE_METHODS: readonly ModuleMethod[] = [
  ties,
  tiesSvd,
  dareLinear,
  dareLinearSvd,
  dareTies,
  dareTiesSvd,
  magnitudePrune,
  magnitudePruneSvd,
  della,
  knots,
  coreSpace,
  compressThenMerge,
  tsvM,
  isoC,
  isoCts,
  pico,
  robustMerge,
  lines,
  modelStock,
  npLora,
];
