import { cloneofsimoLayout } from "./cloneofsimo/layout.ts";
import { diffusersLayout } from "./diffusers/layout.ts";
import { ggufLayout } from "./gguf/layout.ts";
import { kohyaLayout } from "./kohya/layout.ts";
import type { Layout } from "./layout.ts";
import { mlxLayout } from "./mlx/layout.ts";
import { originalLayout } from "./original/layout.ts";
import { peftLayout } from "./peft/layout.ts";

/**
 * Every layout that is known. The order decides whose a tensor's name is where several layouts could have it, and in
 * which order the files of a folder are looked for.
 */
export const LAYOUTS: readonly Layout[] = [
  ggufLayout,
  mlxLayout,
  peftLayout,
  kohyaLayout,
  cloneofsimoLayout,
  diffusersLayout,
  originalLayout,
];
