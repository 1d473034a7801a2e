import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { runCli, runJson, startCli } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");

/** A recipe that is refined in seconds, even by a software GPU: few modules, few short sequences. */
function recipe(steps: number): string {
  const adapters = ["language", "speech"].map((task) =>
    `  - { path: ${EXAMPLE}/adapters/${task}, calibration: ${EXAMPLE}/tasks/${task}.train.jsonl }`
  );
  return `method: lego\nbase_model: ${EXAMPLE}/base\nadapters:\n${
    adapters.join("\n")
  }\nparameters: { rank: 4 }\n` +
    `include: ["*.layers.3.*"]\noutput: { path: out }\ndevice: software\n` +
    `refine: { steps: ${steps}, samples: 4, splices: 4, sequences: 2, agreement_prompts: 2, max_new_tokens: 3, ` +
    `check_every: ${steps}, checkpoint_every: 1, warm_up: 1 }\n`;
}

interface Merged {
  readonly refinement: {
    readonly steps_done: number;
    readonly first_loss: number;
    readonly last_loss: number;
    readonly agreement_before: number;
  };
}

Deno.test("merge with refine, killed and run again, gives the bytes of a run that was left alone", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/recipe.yaml`;
    await Deno.writeTextFile(file, recipe(8));
    const { refinement } = await runJson<Merged>(["merge", file]);
    assertEquals(refinement.steps_done, 8);
    assertGreater(refinement.first_loss, refinement.last_loss);
    const expected = await Deno.readFile(`${folder}/out/adapter_model.safetensors`);
    await Deno.remove(`${folder}/out`, { recursive: true });

    const child = startCli(["merge", file]);
    const ended = child.output();
    const deadline = performance.now() + 120_000;
    while (!existsSync(`${folder}/out.unfinished/checkpoint.bin`)) {
      assert(performance.now() < deadline, "no checkpoint was ever written");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    try {
      child.kill("SIGKILL");
    } catch {
      // It was done already.
    }
    await ended;
    const again = await runCli(["merge", file, "--force"]);
    assertEquals(again.code, 0, again.stderr);
    assertStringIncludes(again.stdout, "8 steps without labels");
    assertEquals(await Deno.readFile(`${folder}/out/adapter_model.safetensors`), expected);
    assert(!existsSync(`${folder}/out.unfinished`), "the checkpoint was tidied up");
  });
});
