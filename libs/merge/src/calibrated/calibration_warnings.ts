import type { Warning } from "@lora-loom/formats";
import type { BaseModel, Sequence } from "@lora-loom/iteris";
import type { HeldOutTask } from "./agreement.ts";

/**
 * Tells which tasks have fewer prompts to measure agreement on than were asked for.
 *
 * @param others the prompts that are not kept out, in words
 */
export function fewKeptOut(
  heldOut: readonly HeldOutTask[],
  wanted: number,
  others = "the calibration ones",
): Warning[] {
  return heldOut.filter(({ prompts }) => prompts.length < wanted).map(({ name, prompts }) => ({
    code: "few_prompts_kept_out",
    message: `${name} has ${prompts.length} prompts beside ${others}; agreement on it is a rough figure`,
    where: name,
  }));
}

/** Tells which tasks have texts where the model's decoder reads answers alone: a text has none. */
export function withoutAnswers(
  { stages }: Pick<BaseModel, "stages">,
  tasks: readonly { readonly name: string; readonly sequences: readonly Sequence[] }[],
): Warning[] {
  if (!stages.some(({ reads }) => reads === "answer")) return [];
  return tasks.flatMap(({ name, sequences }) => {
    const texts = sequences.filter(({ tokens, answerStart }) => answerStart === tokens.length).length;
    if (texts === 0) return [];
    return [{
      code: "texts_without_answers",
      message:
        `${texts} of the ${sequences.length} rows of ${name} are texts, of which the decoder reads its start token alone; prompts say more`,
      where: name,
    }];
  });
}
