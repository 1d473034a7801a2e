/** Memory follows the largest module and not the file. */
import { assertEquals, assertLess } from "@std/assert";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { writeSparseAdapter } from "../support/sparse_adapter.ts";

const MEBIBYTE = 1 << 20;

async function peakOfReading(path: string): Promise<{ values: number; peak: number }> {
  const args = ["run", "-A", "--no-check", repositoryPath("tests/formats/read_all.ts"), path];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("reading an adapter of 1 GiB takes less than 200 MiB more than reading one of its modules", () =>
  withFolder(async (folder) => {
    const [small, large] = [`${folder}/small.safetensors`, `${folder}/large.safetensors`];
    await writeSparseAdapter(small, 1);
    await writeSparseAdapter(large, 256);
    const one = await peakOfReading(small);
    const all = await peakOfReading(large);
    assertEquals(all.values, 256 * one.values);
    assertEquals(4 * all.values, 1024 * MEBIBYTE);
    assertLess(all.peak - one.peak, 200 * MEBIBYTE);
  }));
