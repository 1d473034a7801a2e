/** Memory follows the largest module and not the file. */
import { assertEquals, assertLess } from "@std/assert";
import { repositoryPath, withFolder } from "../support/paths.ts";

const MEBIBYTE = 1 << 20;

/** A kohya file of `count` modules of 4 MiB each; its values are a hole in the file, which takes no room on the disk. */
async function writeSparseAdapter(path: string, count: number): Promise<void> {
  const header: Record<string, unknown> = {};
  const [rank, width] = [128, 4096];
  let end = 0;
  for (let i = 0; i < count; i++) {
    const front = `lora_unet_double_blocks_${i}_img_attn_proj`;
    for (const [ending, shape] of [["lora_down", [rank, width]], ["lora_up", [width, rank]]] as const) {
      header[`${front}.${ending}.weight`] = {
        dtype: "F32",
        shape,
        data_offsets: [end, end + 4 * rank * width],
      };
      end += 4 * rank * width;
    }
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
  using file = await Deno.open(path, { create: true, write: true });
  await file.write(prefix);
  await file.write(text);
  await file.truncate(8 + text.length + end);
}

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
