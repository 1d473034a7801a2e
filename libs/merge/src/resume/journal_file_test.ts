import { assert, assertEquals, assertLess } from "@std/assert";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { inTemporaryFolder } from "@lora-loom/testing";
import { type Identity, JournalFile } from "./journal_file.ts";
import type { Packed } from "./packed.ts";

const IDENTITY: Identity = { method: "iteris", "parameters.alpha": "0.1" };

function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  return inTemporaryFolder((parent) => body(join(parent, "out.unfinished")));
}

function record(number: number): Packed {
  return {
    value: { number, nothing: NaN },
    tensors: [{ shape: [number, 2], values: new Float32Array(2 * number).fill(number / 3) }],
  };
}

async function withSteps(folder: string, count: number, identity = IDENTITY): Promise<void> {
  const { journal } = await JournalFile.open(folder, identity);
  for (let step = 1; step <= count; step++) await journal.append(`step ${step}`, record(step));
  await journal.close();
}

/** What a killed process would have left: the only file of the folder, under the name of a process that is gone. */
async function leave(folder: string, bytes: Uint8Array): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  await writeFile(join(folder, `journal-${process.pid}-0123456789ab.bin`), bytes);
}

async function onlyFile(folder: string): Promise<Uint8Array> {
  const [name, ...others] = await readdir(folder);
  assertEquals(others, []);
  return await readFile(join(folder, name!));
}

async function assertHolds(journal: JournalFile, count: number): Promise<void> {
  assertEquals(journal.steps, Array.from({ length: count }, (_, index) => `step ${index + 1}`));
  for (let step = 1; step <= count; step++) assertEquals(await journal.read(`step ${step}`), record(step));
}

Deno.test("JournalFile gives back in a later run what was appended, and goes on", async () => {
  await inFolder(async (folder) => {
    await withSteps(folder, 3);
    const { journal, found } = await JournalFile.open(folder, IDENTITY);
    assertEquals(found, { isCut: false, others: [] });
    await assertHolds(journal, 3);
    assert(!journal.has("step 4"));
    await journal.append("step 4", record(4));
    await assertHolds(journal, 4);
    await journal.close();
    const again = await JournalFile.open(folder, IDENTITY);
    await assertHolds(again.journal, 4);
    await again.journal.remove();
    assertEquals(await readdir(folder), []);
  });
});

Deno.test("JournalFile writes nothing before there is something to keep", async () => {
  await inFolder(async (folder) => {
    const { journal } = await JournalFile.open(folder, IDENTITY);
    await journal.remove();
    assertEquals(await readdir(join(folder, "..")), []);
  });
});

Deno.test("JournalFile drops the record that a kill or a power failure cut off, at whatever byte, and keeps those before", async () => {
  await inFolder(async (folder) => {
    await withSteps(folder, 1);
    const one = (await onlyFile(folder)).length;
    await rm(folder, { recursive: true });
    await withSteps(folder, 3);
    const bytes = await onlyFile(folder);
    let last = 0;
    for (let length = 0; length <= bytes.length; length += 7) {
      await leave(folder, bytes.subarray(0, length));
      const { journal, found } = await JournalFile.open(folder, IDENTITY);
      const kept = journal.steps.length;
      await assertHolds(journal, kept);
      assertEquals(kept > 0, length >= one, `${length} bytes`);
      assert(kept >= last && (!found.isCut || kept < 3));
      last = kept;
      // What comes next takes the place of what was cut off.
      for (let step = kept + 1; step <= 3; step++) await journal.append(`step ${step}`, record(step));
      await journal.close();
      assertEquals(await onlyFile(folder), bytes, `${length} bytes`);
    }
    assertLess(0, last);
  });
});

Deno.test("JournalFile uses what comes before a flipped bit, and nothing after", async () => {
  await inFolder(async (folder) => {
    await withSteps(folder, 3);
    const bytes = await onlyFile(folder);
    for (let at = 0; at < bytes.length; at += 11) {
      const damaged = bytes.slice();
      damaged[at]! ^= 1 << (at % 8);
      await leave(folder, damaged);
      const { journal, found } = await JournalFile.open(folder, IDENTITY);
      const kept = journal.steps.length;
      assertLess(kept, 3);
      await assertHolds(journal, kept);
      // The first record says what the journal is of.
      assert(found.isCut || (kept === 0 && found.others[0] === "damaged"));
      await journal.close();
    }
  });
});

Deno.test("JournalFile names what differs in a journal of other work, and lets it lie until there is something to keep", async () => {
  await inFolder(async (folder) => {
    await withSteps(folder, 2);
    const other = { method: "iteris", "parameters.alpha": "0.2", seed: "1" };
    const { journal, found } = await JournalFile.open(folder, other);
    assertEquals(found, { isCut: false, others: [["parameters.alpha", "seed"]] });
    assertEquals(journal.steps, []);
    await journal.close();
    const back = await JournalFile.open(folder, IDENTITY);
    await assertHolds(back.journal, 2);
    await back.journal.close();
    await withSteps(folder, 1, other);
    assertEquals((await readdir(folder)).length, 1);
    const gone = await JournalFile.open(folder, IDENTITY);
    assertEquals([gone.journal.steps, gone.found.others.length], [[], 1]);
    await gone.journal.close();
  });
});

Deno.test("JournalFile.discard() removes its own steps alone, remove() those of other work too", async () => {
  await inFolder(async (folder) => {
    await withSteps(folder, 2);
    const discarding = await JournalFile.open(folder, { method: "lego" });
    await discarding.journal.discard();
    assertEquals((await readdir(folder)).length, 1);
    const removing = await JournalFile.open(folder, { method: "lego" });
    await removing.journal.remove();
    assertEquals(await readdir(folder), []);
  });
});

Deno.test("JournalFile leaves alone what a process that runs is writing, and each of two writes its own", async () => {
  await inFolder(async (folder) => {
    const first = await JournalFile.open(folder, IDENTITY);
    await first.journal.append("step 1", record(1));
    const second = await JournalFile.open(folder, IDENTITY);
    assertEquals(second.journal.steps, []);
    await second.journal.append("step 1", record(1));
    await first.journal.append("step 2", record(2));
    await assertHolds(first.journal, 2);
    await assertHolds(second.journal, 1);
    await second.journal.remove();
    await assertHolds(first.journal, 2);
    await first.journal.close();
  });
});

Deno.test("JournalFile takes the one with most steps where several runs left one, and drops the rest", async () => {
  await inFolder(async (folder) => {
    const journals = [1, 3, 2].map(() => JournalFile.open(folder, IDENTITY));
    for (const [index, { journal }] of (await Promise.all(journals)).entries()) {
      for (let step = 1; step <= [1, 3, 2][index]!; step++) {
        await journal.append(`step ${step}`, record(step));
      }
    }
    for (const opened of journals) await (await opened).journal.close();
    const { journal } = await JournalFile.open(folder, IDENTITY);
    await assertHolds(journal, 3);
    await journal.remove();
    assertEquals(await readdir(folder), []);
  });
});
