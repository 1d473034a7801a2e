import { locate } from "./components.ts";
import { inDiffusersNames } from "./schemes.ts";

/** What stands before the layers of a language model, in different versions and wrappers of the same model. */
const MODEL_PREFIX = /^(?:base_model\.model\.|model\.|language_model\.)+/;

/**
 * The path of a module without what differs between versions of its model: `model.`, `model.language_model.`,
 * `language_model.model.`, `base_model.model.`, each also doubled.
 */
export function canonicalPath(name: string): string {
  const { path } = locate(name.replace(/^(?:base_model\.model\.)+/, ""));
  return path.replace(MODEL_PREFIX, "");
}

/**
 * A key that is equal for two names of the same module: prefixes are removed, the component of a pipeline is inferred
 * where it is not written, and the original names of U-Nets and transformers become those of diffusers.
 */
export function moduleKey(name: string): string {
  const { component, path } = locate(inDiffusersNames(name.replace(/^(?:base_model\.model\.)+/, "")) ?? name);
  const canonical = path.replace(MODEL_PREFIX, "");
  return component === undefined || component === "text_encoder" ? canonical : `${component}.${canonical}`;
}
