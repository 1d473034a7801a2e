import type { Layout } from "./layout.ts";
import { peftLayout } from "./peft/layout.ts";

/** Every layout that is known, in the order in which files of a folder are looked for. */
export const LAYOUTS: readonly Layout[] = [
  peftLayout,
];
