/** Makes base models of random weights, streamed to disk in shards as large models come. */
import { createSafetensorsWriter, type TensorDescription } from "@lora-loom/formats";
import { llamaConfig, llamaModules, type LlamaShape } from "./llama_shapes.ts";
import { normalBfloats } from "./random_values.ts";

/** How weights are spread before training; the inputs of all modules come from norms or are small. */
const DEVIATION = 0.02;
/** What a shard holds at most, unless one tensor is larger. */
const SHARD_BYTES = 2 ** 31;
const BYTES_EACH = 2;
/** How far into the random numbers a tensor may begin. */
const OFFSETS = 2 ** 20;

/** Tensors of one shard. */
type Shard = TensorDescription[];

/** Writes a Llama of random bfloat16 weights with its configuration; the tokenizer is the caller's to add. */
export async function makeBase(folder: string, llama: LlamaShape): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(llamaConfig(llama), null, 2));
  const shards = inShards(tensorsOf(llama));
  const largest = Math.max(...shards.flat().map(elements));
  // One run of numbers serves all tensors, each from another place on: independence to the last bit is not needed.
  const numbers = normalBfloats(largest + OFFSETS, DEVIATION, 1);
  const weightMap: Record<string, string> = {};
  for (const [index, shard] of shards.entries()) {
    const name = `model-${padded(index + 1)}-of-${padded(shards.length)}.safetensors`;
    const writer = await createSafetensorsWriter(`${folder}/${name}`, shard, { format: "pt" });
    for (const tensor of shard) {
      const first = Object.keys(weightMap).length * 7919 % OFFSETS;
      await writer.write(tensor.name, bytesOf(tensor, numbers, first));
      weightMap[tensor.name] = name;
    }
    await writer.finish();
  }
  await Deno.writeTextFile(
    `${folder}/model.safetensors.index.json`,
    JSON.stringify({ weight_map: weightMap }),
  );
}

function tensorsOf(llama: LlamaShape): TensorDescription[] {
  const matrix = (name: string, out: number, inFeatures: number): TensorDescription => ({
    name: `${name}.weight`,
    dtype: "BF16",
    shape: [out, inFeatures],
  });
  const gain = (name: string): TensorDescription => ({ name, dtype: "BF16", shape: [llama.hidden] });
  const layers = Array.from({ length: llama.layers }, (_, layer) => `model.layers.${layer}`);
  return [
    matrix("model.embed_tokens", llama.vocabulary, llama.hidden),
    ...llamaModules(llama).map(({ name, inFeatures, outFeatures }) => matrix(name, outFeatures, inFeatures)),
    ...layers.flatMap((prefix) => [
      gain(`${prefix}.input_layernorm.weight`),
      gain(`${prefix}.post_attention_layernorm.weight`),
    ]),
    gain("model.norm.weight"),
    ...(llama.tied ? [] : [matrix("lm_head", llama.vocabulary, llama.hidden)]),
  ];
}

function inShards(tensors: readonly TensorDescription[]): Shard[] {
  const shards: Shard[] = [];
  let room = 0;
  for (const tensor of tensors) {
    const bytes = BYTES_EACH * elements(tensor);
    if (bytes > room) {
      shards.push([]);
      room = SHARD_BYTES;
    }
    shards.at(-1)!.push(tensor);
    room -= bytes;
  }
  return shards;
}

/** Norms are ones, so that activations stay as large as they are. */
function bytesOf(tensor: TensorDescription, numbers: Uint16Array<ArrayBuffer>, first: number): Uint8Array {
  const count = elements(tensor);
  if (tensor.shape.length === 1) return new Uint8Array(new Uint16Array(count).fill(0x3f80).buffer);
  return new Uint8Array(numbers.buffer, BYTES_EACH * first, BYTES_EACH * count);
}

function elements({ shape }: TensorDescription): number {
  return shape.reduce((product, size) => product * size, 1);
}

function padded(number: number): string {
  return String(number).padStart(5, "0");
}
