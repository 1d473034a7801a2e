import { type Component, inferComponent } from "../../names/components.ts";

/** A kohya key's front: which component its prefix names, and the path joined by underscores. */
export interface KohyaPath {
  readonly prefix: string;
  readonly path: string;
}

const PREFIX = /^(lora_(?:unet|transformer|prior_unet|prior_te|te\d?)|lycoris)_/;

/** Whether a tensor's name begins as kohya's do. */
export function hasKohyaPrefix(key: string): boolean {
  return PREFIX.test(key);
}

/** Splits the front of a tensor's name; a component that stands there twice (`lora_unet_unet_…`) is read once. */
export function splitKohyaPath(path: string): KohyaPath | undefined {
  const match = PREFIX.exec(path);
  if (!match) return undefined;
  const prefix = match[1]!;
  const repeated = `${prefix.replace("lora_", "")}_`;
  let rest = path.slice(match[0].length);
  while (rest.startsWith(repeated) && prefix !== "lycoris") rest = rest.slice(repeated.length);
  return { prefix, path: rest };
}

/** The component of a prefix, given the module's path inside it; undefined where the prefix names none. */
export function componentOf(prefix: string, path: string, isFlux: boolean): Component | undefined {
  switch (prefix) {
    case "lora_unet":
      // Also the prefix of diffusion transformers.
      return inferComponent(path) === "unet" ? "unet" : "transformer";
    case "lora_transformer":
      return "transformer";
    case "lora_prior_unet":
      return "prior";
    case "lora_te":
    case "lora_te1":
    case "lora_prior_te":
      return "text_encoder";
    case "lora_te2":
      return "text_encoder_2";
    case "lora_te3":
      // T5: diffusers' second text encoder of Flux, the third of SD3.
      return isFlux ? "text_encoder_2" : "text_encoder_3";
    default:
      return undefined;
  }
}

/** What decides kohya's prefixes besides a module's own component. */
export interface PrefixContext {
  /** The pipeline has several text encoders, so that the first is called `te1`. */
  readonly hasSeveralEncoders: boolean;
}

/** The prefix of a module that is written. */
export function prefixFor(
  component: Component | undefined,
  path: string,
  { hasSeveralEncoders }: PrefixContext,
): string {
  switch (component) {
    case "unet":
    case "transformer":
    case "transformer_2":
      return "lora_unet";
    case "prior":
      return "lora_prior_unet";
    case "text_encoder":
      return hasSeveralEncoders ? "lora_te1" : "lora_te";
    case "text_encoder_2":
      return path.startsWith("encoder.block.") ? "lora_te3" : "lora_te2";
    case "text_encoder_3":
      return "lora_te3";
    case undefined:
      return "lycoris";
  }
}
