/** Merges that are killed and run again. */
import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import { runCli, runInShell, startCli } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const KILLS = 3;

/** A recipe of few modules and little text, over all layers. */
async function writeRecipe(folder: string, method: string, parameters: string): Promise<string> {
  const adapters = ["language", "speech"].map((task) =>
    `  - { path: ${EXAMPLE}/adapters/${task}, calibration: ${EXAMPLE}/tasks/${task}.train.jsonl }`
  );
  await Deno.writeTextFile(
    `${folder}/recipe.yaml`,
    `method: ${method}\nbase_model: ${EXAMPLE}/base\nadapters:\n${adapters.join("\n")}\n` +
      `parameters: { max_new_tokens: 3, ${parameters} }\n` +
      `include: ["*.v_proj", "*.o_proj"]\noutput: { path: out/merged }\ndevice: software\n`,
  );
  await Deno.mkdir(`${folder}/out`);
  return `${folder}/recipe.yaml`;
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

const weights = (folder: string) => Deno.readFile(`${folder}/out/merged/adapter_model.safetensors`);

/** `loom.json` without times and without what it says of being resumed. */
async function recordOf(folder: string): Promise<{ readonly record: unknown; readonly resumed: unknown }> {
  const { created: _created, seconds: _seconds, resumed, modules, ...rest } = JSON.parse(
    await Deno.readTextFile(`${folder}/out/merged/loom.json`),
  );
  const untimed = modules.map(({ seconds: _seconds, ...module }: Record<string, unknown>) => module);
  return { record: { ...rest, modules: untimed }, resumed };
}

/** Bytes of the journals beside the output. */
function journalBytes(folder: string): number {
  try {
    return names(`${folder}/out/merged.unfinished`)
      .map((name) => Deno.statSync(`${folder}/out/merged.unfinished/${name}`).size)
      .reduce((sum, size) => sum + size, 0);
  } catch {
    // It comes with the first step, and files in it are renamed when they are taken over.
    return 0;
  }
}

/** Kills a merge once its journal has so many bytes. */
async function killAt(bytes: number, folder: string, recipe: string): Promise<void> {
  const child = startCli(["merge", recipe]);
  const ended = child.output();
  const deadline = performance.now() + 60_000;
  while (journalBytes(folder) < bytes) {
    assert(performance.now() < deadline, `the journal never reached ${bytes} bytes`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  child.kill("SIGKILL");
  await ended;
  assertEquals(names(`${folder}/out`).filter((name) => name === "merged"), [], "it was killed in time");
}

Deno.test("a merge that is killed again and again and run again ends with the bytes of one that was left alone", async () => {
  await withFolder(async (folder) => {
    const recipe = await writeRecipe(folder, "iteris+", "samples: 4, agreement_prompts: 2");
    const whole = await runCli(["merge", recipe]);
    assertEquals(whole.code, 0, whole.stderr);
    const [expected, { record }] = [await weights(folder), await recordOf(folder)];
    await Deno.remove(`${folder}/out/merged`, { recursive: true });

    // A journal ends a little larger than the weights, which it holds.
    const [random, total] = [seeded(11), expected.length];
    for (let kill = 0; kill < KILLS; kill++) {
      await killAt(Math.round(total * (kill + random()) / KILLS * 0.95), folder, recipe);
    }
    const last = await runCli(["merge", recipe]);
    assertEquals(last.code, 0, last.stderr);
    assertStringIncludes(last.stderr, "note: an interrupted run of this merge finished");
    assertStringIncludes(last.stdout, "steps of an interrupted run");
    assertEquals(await weights(folder), expected);
    const after = await recordOf(folder);
    assertEquals(after.record, record);
    assertGreater((after.resumed as { steps: number }).steps, 4);
    assertLess(last.seconds, whole.seconds);
    assertEquals(names(`${folder}/out`), ["merged"]);
  });
});

Deno.test("a merge stopped with Ctrl-C says what it keeps, exits with 1, and goes on when it is run again", async () => {
  await withFolder(async (folder) => {
    const recipe = await writeRecipe(folder, "iteris", "samples: 4, agreement_prompts: 0");
    const child = startCli(["merge", recipe, "--json"]);
    const output = child.output();
    while (journalBytes(folder) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGINT");
    const { code, stdout } = await output;
    const { error } = JSON.parse(new TextDecoder().decode(stdout));
    assertEquals([code, error.code, error.where], [1, "cancelled", `${folder}/out/merged.unfinished`]);
    assertStringIncludes(error.fix, "run it again: it goes on from there");
    assertEquals(names(`${folder}/out`), ["merged.unfinished"]);
    const again = await runCli(["merge", recipe]);
    assertEquals(again.code, 0, again.stderr);
    assertStringIncludes(again.stderr, "this one goes on from there");
    assertEquals(names(`${folder}/out`), ["merged"]);
  });
});

Deno.test("a merge whose steps do not fit on the disk says so once, and is finished", async () => {
  await withFolder(async (folder) => {
    const recipe = await writeRecipe(
      folder,
      "iteris",
      "schedule: jacobi, iterations: 2, samples: 1, agreement_prompts: 0",
    );
    // The limit on a file's size lets the result pass, but not the journal of all passes.
    const script = `trap '' XFSZ; ulimit -f 400; exec $LOOM merge ${recipe} --device cpu --json`;
    const { code, stderr } = await runInShell(script);
    assertEquals(code, 0, stderr);
    assertEquals(stderr.split("finished steps cannot be kept").length, 2, stderr);
    assertEquals(names(`${folder}/out`), ["merged"]);
  });
});
