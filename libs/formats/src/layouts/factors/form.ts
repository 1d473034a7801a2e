import type { ModuleForm, ModuleSpec } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { dropAdvice } from "../drop.ts";

const LINEAR: ModuleForm = { kind: "linear" };

/** The form of a module, which is linear unless it says otherwise. */
export function formOf({ form }: { readonly form?: ModuleForm | undefined }): ModuleForm {
  return form ?? LINEAR;
}

/** The shapes [r, in] and [out, r] of a module's factors, in the dimensions of a convolution where it is one. */
export function factorShapes(
  { name, inFeatures, outFeatures, form }: ModuleSpec,
  rank: number,
  where: string,
): { a: number[]; b: number[] } {
  if (form?.kind !== "conv") return { a: [rank, inFeatures], b: [outFeatures, rank] };
  const { kernel } = form;
  const channels = inFeatures / kernel.reduce((product, size) => product * size, 1);
  if (!Number.isInteger(channels)) {
    throw new FormatError(
      "shape_mismatch",
      `${inFeatures} inputs are no whole number of channels of a kernel [${kernel.join(", ")}]`,
      "Give inFeatures as channels times the kernel's size.",
      `${where} ${name}`,
    );
  }
  return { a: [rank, channels, ...kernel], b: [outFeatures, rank, ...kernel.map(() => 1)] };
}

/**
 * Refuses modules that a layout has no place for.
 *
 * @throws {FormatError} `form_unsupported`
 */
export function refuseForms(
  modules: readonly ModuleSpec[],
  kinds: readonly ModuleForm["kind"][],
  title: string,
  where: string,
): void {
  const refused = modules.find((module) => kinds.includes(formOf(module).kind));
  if (!refused) return;
  const what = formOf(refused).kind === "conv" ? "a convolution" : "an embedding";
  throw new FormatError(
    "form_unsupported",
    `${refused.name} is ${what}, which ${title} has no place for`,
    `Choose a layout that has (peft${
      formOf(refused).kind === "conv" ? ", kohya or diffusers" : ", mlx or gguf"
    }), or leave the module out with ${dropAdvice(refused.name)}.`,
    `${where} ${refused.name}`,
  );
}
