import { cat } from "./cat.ts";
import { DATA_FREE_METHODS } from "./data_free.ts";
import { iteris } from "./iteris.ts";
import { iterisPlus } from "./iteris_plus.ts";
import { lego } from "./lego.ts";
import { legoPlus } from "./lego_plus.ts";
import { linear } from "./linear.ts";
import type { Method } from "./method.ts";
import { svd } from "./svd.ts";

/** Every method by the name that recipes use, in the order in which lists show them. A new one is one file and one entry. */
export const METHODS: ReadonlyMap<string, Method> = new Map(
  [iterisPlus, iteris, lego, legoPlus, svd, linear, cat, ...DATA_FREE_METHODS].map((
    method: Method,
  ) => [method.name, method]),
);
