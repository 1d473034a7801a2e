import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import { type ModuleSpec, writeAdapter } from "../support/adapters.ts";
import { runCli, startCli } from "../support/cli.ts";
import { withFolder } from "../support/paths.ts";

const KILLS = 14;
const FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "loom.json", "report.html"];

const MODULES: readonly ModuleSpec[] = Array.from({ length: 12 }, (_, layer) => ({
  name: `model.layers.${layer}.self_attn.q_proj`,
  inFeatures: 512,
  outFeatures: 512,
  rank: 16,
}));

/** Two adapters that take about a second to merge, and the command that merges them. */
async function prepare(folder: string): Promise<string[]> {
  await writeAdapter(`${folder}/in/a`, MODULES, { seed: 1 });
  await writeAdapter(`${folder}/in/b`, MODULES, { seed: 2 });
  const recipe = `${folder}/in/recipe.yaml`;
  await Deno.writeTextFile(
    recipe,
    "method: lego\nadapters: [{ path: a }, { path: b }]\nparameters: { rank: 16, restarts: 100 }\n" +
      "output: { path: ../out/merged }\ndevice: cpu\n",
  );
  await Deno.mkdir(`${folder}/out`);
  return ["merge", recipe];
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

const weights = (folder: string) => Deno.readFile(`${folder}/out/merged/adapter_model.safetensors`);

/** Waits for an entry that starts with `prefix`, for at most ten seconds. */
async function untilExists(folder: string, prefix: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!names(folder).some((name) => name.startsWith(prefix))) {
    assert(performance.now() < deadline, `${prefix} never appeared in ${folder}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

Deno.test("a merge killed at any moment leaves its output absent or complete, and the next run tidies up", async () => {
  await withFolder(async (folder) => {
    const command = await prepare(folder);
    const whole = await runCli(command);
    assertEquals(whole.code, 0, whole.stderr);
    const expected = await weights(folder);
    await Deno.remove(`${folder}/out/merged`, { recursive: true });
    const random = seeded(7);
    const outcomes = { absent: 0, complete: 0, leftovers: 0 };
    for (let kill = 0; kill < KILLS; kill++) {
      const child = startCli(command);
      const output = child.output();
      // From before the first file is opened to after the last is renamed.
      await new Promise((resolve) => setTimeout(resolve, 1000 * whole.seconds * (0.1 + random())));
      try {
        child.kill("SIGKILL");
      } catch {
        // It was done before.
      }
      await output;
      const left = names(`${folder}/out`);
      if (left.some((name) => name.includes("partial"))) outcomes.leftovers++;
      if (left.includes("merged")) {
        outcomes.complete++;
        assertEquals(names(`${folder}/out/merged`), FILES);
        assertEquals(await weights(folder), expected);
        await Deno.remove(`${folder}/out/merged`, { recursive: true });
      } else outcomes.absent++;
    }
    console.log(`      ${KILLS} kills: ${JSON.stringify(outcomes)}`);
    assert(outcomes.leftovers > 0, "no kill hit the work itself");
    const last = await runCli(command);
    assertEquals(last.code, 0, last.stderr);
    assertEquals(names(`${folder}/out`), ["merged"]);
    assertEquals(await weights(folder), expected);
  });
});

Deno.test("a forced merge killed at any moment leaves the old output, the new one, or the old one to be put back", async () => {
  await withFolder(async (folder) => {
    const command = await prepare(folder);
    const old = await runCli([...command, "--set", "parameters.rank=4"]);
    assertEquals(old.code, 0, old.stderr);
    const [before, random] = [await weights(folder), seeded(8)];
    for (let kill = 0; kill < 6; kill++) {
      const child = startCli([
        ...command,
        "--force",
        "--set",
        "parameters.rank=4",
        "--set",
        "adapters.0.weight=2",
      ]);
      const output = child.output();
      await new Promise((resolve) => setTimeout(resolve, 900 * old.seconds * random()));
      try {
        child.kill("SIGKILL");
      } catch {
        // It was done before.
      }
      await output;
      if (names(`${folder}/out`).includes("merged")) assertEquals(names(`${folder}/out/merged`), FILES);
      // A run that is refused for its flags must not repair anything; one that is refused for its target must.
      const refused = await runCli(command);
      assertEquals(refused.code, 2, "the target is there again");
      if (String(await weights(folder)) !== String(before)) break;
    }
    assertEquals(names(`${folder}/out/merged`), FILES);
  });
});

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.test(`merge cleans up and exits with 1 on ${signal}`, async () => {
    await withFolder(async (folder) => {
      const child = startCli([...await prepare(folder), "--json"]);
      const output = child.output();
      await untilExists(`${folder}/out`, ".merged.partial-");
      child.kill(signal);
      const { code, stdout, stderr } = await output;
      const text = new TextDecoder().decode(stdout);
      assertEquals(code, 1, new TextDecoder().decode(stderr));
      assertStringIncludes(text, '"cancelled"');
      assertEquals(names(`${folder}/out`), []);
    });
  });
}
