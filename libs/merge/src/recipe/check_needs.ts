import { MergeError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import type { RecipeDocument } from "./document.ts";
import type { RecipeInput } from "./schema.ts";

/** Whether captures stand for the base model and the calibration text that the method would need. */
export function runsOnCaptures({ needs }: Method, { adapters }: RecipeInput): boolean {
  return needs.calibration && adapters.some(({ capture }) => capture !== undefined);
}

/**
 * Checks that a recipe gives what its method and its refinement run on.
 *
 * @throws {MergeError} `missing_key`, `captures_unsupported`, `capture_and_calibration`, `captures_incomplete`
 */
export function checkNeeds(method: Method, recipe: RecipeInput, document: RecipeDocument): void {
  if (runsOnCaptures(method, recipe)) checkCaptures(method, recipe, document);
  else {
    if (method.needs.baseModel) requireBaseModel(method.name, "runs", recipe, document);
    if (method.needs.calibration) requireCalibration(method.name, recipe, document);
  }
  // Before anything is computed: the writer would find it out at the end.
  if (recipe.output.format === "gguf") {
    requireBaseModel("output.format: gguf", "names the architecture of", recipe, document);
  }
  if (!recipe.refine) return;
  requireBaseModel("refine", "runs", recipe, document);
  requireCalibration("refine", recipe, document);
}

/** @param who what needs it, such as the method that `does` something with it */
function requireBaseModel(who: string, does: string, recipe: RecipeInput, document: RecipeDocument): void {
  if (recipe.base_model !== undefined) return;
  throw new MergeError(
    "missing_key",
    `${who} ${does} the base model, but the recipe names none`,
    "add base_model: path/to/the/model/folder",
    document.locate([]),
  );
}

function requireCalibration(who: string, { adapters }: RecipeInput, document: RecipeDocument): void {
  adapters.forEach((adapter, index) => {
    if (adapter.calibration !== undefined) return;
    throw new MergeError(
      "missing_key",
      `${who} needs calibration prompts for every adapter, but ${adapter.path} has none`,
      'add calibration: path/to/prompts.jsonl, with a row such as {"prompt": "…"} per example',
      document.locate(["adapters", index]),
    );
  });
}

function checkCaptures(method: Method, { adapters }: RecipeInput, document: RecipeDocument): void {
  adapters.forEach(({ path, capture, calibration }, index) => {
    const place = (key: string) => document.locate(["adapters", index, key]);
    if (capture !== undefined && !method.captures) {
      throw new MergeError(
        "captures_unsupported",
        `${method.name} runs the base model on text, and ${capture} holds only what its modules once read`,
        "write method: iteris, or give base_model and calibration: instead of capture:",
        place("capture"),
      );
    }
    if (capture !== undefined && calibration !== undefined) {
      throw new MergeError(
        "capture_and_calibration",
        `${path} has both capture: and calibration:, one was expected`,
        "keep capture: to merge without running the model, or calibration: to run it",
        place("capture"),
      );
    }
    if (capture === undefined) {
      throw new MergeError(
        "captures_incomplete",
        `some adapters have capture:, but ${path} has not`,
        "add capture: path/to/its/capture.npz, or give base_model and calibration: to all adapters",
        document.locate(["adapters", index]),
      );
    }
  });
}
