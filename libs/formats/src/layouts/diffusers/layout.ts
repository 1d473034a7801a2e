import { COMPONENTS } from "../../names/components.ts";
import type { Layout } from "../layout.ts";
import { readDiffusers } from "./read.ts";
import { createDiffusersWriter, WEIGHTS } from "./write.ts";

/** Hugging Face diffusers, in the three forms that its keys have had. */
export const diffusersLayout: Layout = {
  id: "diffusers",
  title: "diffusers",
  container: "safetensors",
  weightFiles: ["pytorch_lora_weights"],
  ownsKey: (key) =>
    COMPONENTS.some((component) => key.startsWith(`${component}.`)) || key.includes(".processor."),
  read: readDiffusers,
  writing: { weightFile: WEIGHTS, isSingleFile: true, create: createDiffusersWriter },
};
