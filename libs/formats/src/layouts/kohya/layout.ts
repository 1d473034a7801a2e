import { createKohyaWriter } from "./write.ts";
import type { Layout } from "../layout.ts";
import { hasKohyaPrefix } from "./prefixes.ts";
import { readKohya } from "./read.ts";

/** kohya-ss/sd-scripts and LyCORIS: one file, keys `lora_unet_<path joined by _>.lora_down.weight`. */
export const kohyaLayout: Layout = {
  id: "kohya",
  title: "kohya",
  container: "safetensors",
  weightFiles: [],
  ownsKey: hasKohyaPrefix,
  read: readKohya,
  writing: { weightFile: "lora.safetensors", isSingleFile: true, create: createKohyaWriter },
};
