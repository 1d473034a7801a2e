import { inferComponent, splitComponent } from "../../names/components.ts";

/**
 * The module that the front of a diffusers key names. The oldest form puts the attention processor into the path and
 * calls the output projection `to_out` (`attn1.processor.to_out_lora`); it may leave out the component.
 */
export function readDiffusersPath(front: string): string {
  const { component, path } = splitComponent(front);
  const parts = path.split(".");
  const processor = parts.lastIndexOf("processor");
  if (processor >= 0) {
    parts.splice(processor, 1);
    if (parts.at(-1) === "to_out") parts.push("0");
  }
  const clean = parts.join(".");
  const owner = component ?? inferComponent(clean);
  return owner ? `${owner}.${clean}` : clean;
}

/** The name of a module in a diffusers file: the component in front, which language models get here. */
export function diffusersName(name: string): string {
  const { component, path } = splitComponent(name);
  if (component) return name;
  const inferred = inferComponent(path);
  return `${inferred ?? "text_encoder"}.${path}`;
}
