/** A kohya file of `count` modules of 4 MiB each; its values are a hole in the file, which takes no room on the disk. */
export async function writeSparseAdapter(path: string, count: number): Promise<void> {
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
