import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { assertRefused, inTemporaryFolder, REPOSITORY } from "../test_support.ts";
import { replaceDirectory, stageDirectory, stageFile, swapIn } from "./staging.ts";

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
}

Deno.test("stageDirectory() shows the target only after commit", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "sub/merged");
    const staging = await stageDirectory(target);
    await Deno.mkdir(join(staging.path, "inner"));
    await Deno.writeTextFile(join(staging.path, "inner/a"), "new");
    const [name] = await namesIn(join(folder, "sub"));
    assert(/^\.merged\.partial-/.test(name!), name);
    await staging.commit();
    assertEquals(await namesIn(join(folder, "sub")), ["merged"]);
    assertEquals(await Deno.readTextFile(join(target, "inner/a")), "new");
    await staging.discard();
    assertEquals(await namesIn(join(folder, "sub")), ["merged"]);
  }));

Deno.test("stageDirectory() leaves nothing behind after discard", () =>
  inTemporaryFolder(async (folder) => {
    const staging = await stageDirectory(join(folder, "merged"));
    await Deno.writeTextFile(join(staging.path, "a"), "new");
    await staging.discard();
    assertEquals(await namesIn(folder), []);
  }));

Deno.test("stageDirectory() refuses an existing target, at the start and at commit", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    const staging = await stageDirectory(target);
    await Deno.mkdir(target);
    await assertRefused(() => stageDirectory(target), "target_exists");
    await assertRefused(() => staging.commit(), "target_exists");
    await staging.discard();
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("stageDirectory() replaces the target when forced, and keeps it until then", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    await Deno.mkdir(target);
    await Deno.writeTextFile(join(target, "loom.json"), "old");
    const staging = await stageDirectory(target, { force: true });
    await Deno.writeTextFile(join(staging.path, "new"), "new");
    assertEquals(await namesIn(target), ["loom.json"]);
    await staging.commit();
    assertEquals(await namesIn(target), ["new"]);
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("stageDirectory() and commit() refuse to replace what is no earlier result, forced or not", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    const staging = await stageDirectory(target, { force: true });
    await Deno.mkdir(target);
    await Deno.writeTextFile(join(target, "thesis.txt"), "old");
    await assertRefused(() => stageDirectory(target, { force: true }), "not_a_result");
    await assertRefused(() => staging.commit(), "not_a_result");
    await staging.discard();
    assertEquals(await Deno.readTextFile(join(target, "thesis.txt")), "old");
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("commit() keeps the old target when there is nothing to put in its place", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged.safetensors");
    await Deno.copyFile(
      join(REPOSITORY, "examples/tiny-llama/adapters/language/adapter_model.safetensors"),
      target,
    );
    const old = await Deno.readFile(target);
    const staging = await stageFile(target, { force: true });
    await assertRefused(() => staging.commit(), "not_found");
    assertEquals(await Deno.readFile(target), old);
  }));

Deno.test("swapIn() puts the old target back when the new one cannot take its place", () =>
  inTemporaryFolder(async (folder) => {
    const [path, target, aside] = ["new", "target", "aside"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await Deno.writeTextFile(target, "old");
    await Deno.writeTextFile(path, "new");
    const move = (from: string, to: string) =>
      from === path ? Promise.reject(new Error("device on fire")) : Deno.rename(from, to);
    await assertRejects(() => swapIn(path, target, aside, move), Error, "device on fire");
    assertEquals(await Deno.readTextFile(target), "old");
    await swapIn(path, target, aside);
    assertEquals([await namesIn(folder), await Deno.readTextFile(target)], [["target"], "new"]);
  }));

Deno.test("replaceDirectory() keeps the old target when filling the new one fails", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    await replaceDirectory(target, (path) => Deno.writeTextFile(join(path, "loom.json"), "old"));
    const failing = () =>
      replaceDirectory(target, async (path) => {
        await Deno.writeTextFile(join(path, "a"), "new");
        throw new Error("out of paper");
      }, { force: true });
    await assertRejects(failing, Error, "out of paper");
    assertEquals(await Deno.readTextFile(join(target, "loom.json")), "old");
    assertEquals(await namesIn(folder), ["merged"]);
  }));

/** A program that stages `target`, writes into it, says so and waits to be killed. */
const VICTIM = `
  const [module, target, force] = Deno.args;
  const { stageDirectory } = await import(module);
  const staging = await stageDirectory(target, { force: force === "force" });
  await Deno.writeTextFile(staging.path + "/half", "half");
  console.log("staged");
  setInterval(() => {}, 1000);
`;

async function killWhileStaging(target: string, force: boolean): Promise<void> {
  const module = new URL("./staging.ts", import.meta.url).href;
  const script = await Deno.makeTempFile({ suffix: ".js" });
  await Deno.writeTextFile(script, VICTIM);
  const args = ["run", "-A", "--no-config", script, module, target, force ? "force" : ""];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
  const reader = child.stdout.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value).trim(), "staged");
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  await Deno.remove(script);
}

Deno.test("a run killed while it stages leaves no target, and the next run cleans up after it", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    await killWhileStaging(target, false);
    const [left] = await namesIn(folder);
    assert(/^\.merged\.partial-\d+-/.test(left!), left);
    const staging = await stageDirectory(target);
    assertEquals((await namesIn(folder)).includes(left!), false);
    await staging.commit();
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("a forced run killed while it stages leaves the old target as it was", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    await Deno.mkdir(target);
    await Deno.writeTextFile(join(target, "loom.json"), "old");
    await killWhileStaging(target, true);
    assertEquals(await Deno.readTextFile(join(target, "loom.json")), "old");
  }));

/** The id of a process that has ended. */
async function deadProcess(): Promise<number> {
  const child = new Deno.Command("true").spawn();
  await child.status;
  return child.pid;
}

Deno.test("stageDirectory() puts a target back that a killed run had moved aside", () =>
  inTemporaryFolder(async (folder) => {
    const suffix = `${await deadProcess()}-0123456789ab`;
    await Deno.mkdir(join(folder, `.merged.replaced-${suffix}`));
    await Deno.mkdir(join(folder, `.merged.partial-${suffix}`));
    await assertRefused(() => stageDirectory(join(folder, "merged")), "target_exists");
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("stageDirectory() removes what was replaced when the killed run had put the new target in place", () =>
  inTemporaryFolder(async (folder) => {
    const aside = join(folder, `.merged.replaced-${await deadProcess()}-0123456789ab`);
    for (const [path, content] of [[join(folder, "merged"), "new"], [aside, "old"]] as const) {
      await Deno.mkdir(path);
      await Deno.writeTextFile(join(path, "loom.json"), content);
    }
    const staging = await stageDirectory(join(folder, "merged"), { force: true });
    await staging.discard();
    assertEquals(await Deno.readTextFile(join(folder, "merged/loom.json")), "new");
    assertEquals(await namesIn(folder), ["merged"]);
  }));

Deno.test("stageDirectory() leaves alone what a running process or another target owns", () =>
  inTemporaryFolder(async (folder) => {
    const dead = await deadProcess();
    const others = [
      `.merged.partial-${Deno.ppid}-0123456789ab`,
      `.merged2.partial-${dead}-0123456789ab`,
      `.merged.partial-notes`,
    ];
    for (const name of others) await Deno.mkdir(join(folder, name));
    const first = await stageDirectory(join(folder, "merged"));
    const second = await stageDirectory(join(folder, "merged"));
    assertEquals(new Set(await namesIn(folder)).size, 5);
    await first.discard();
    await second.discard();
    assertEquals(await namesIn(folder), [...others].sort());
  }));

Deno.test("stageDirectory() refuses a target that a running process stages when it is to be exclusive", () =>
  inTemporaryFolder(async (folder) => {
    const target = join(folder, "merged");
    const dead = await deadProcess();
    for (const name of [`.merged.partial-${dead}-0123456789ab`, ".merged.partial-notes"]) {
      await Deno.mkdir(join(folder, name));
    }
    const first = await stageDirectory(target, { exclusive: true });
    const refused = await assertRefused(() => stageDirectory(target, { exclusive: true }), "target_in_use");
    assert(refused.fix.endsWith(`remove ${first.path}.`));
    assertEquals((await namesIn(folder)).length, 2, "its own folder is gone again");
    await first.commit();
    const again = await stageDirectory(target, { exclusive: true, force: true });
    await again.discard();
  }));

Deno.test("stageDirectory() names the problem when the target's parent is a file", () =>
  inTemporaryFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "file"), "");
    await assertRefused(() => stageDirectory(join(folder, "file/merged")), "not_a_directory");
  }));

Deno.test("stageDirectory() refuses the root of the file system", async () => {
  await assertRefused(() => stageDirectory("/", { force: true }), "invalid_path");
});
