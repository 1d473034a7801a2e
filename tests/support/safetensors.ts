/** A reader and writer of safetensors that shares no code with the project: the format is a length, JSON and bytes. */

/** A float tensor in float64. */
export interface PlainTensor {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

function decode(bytes: ArrayBuffer, dtype: string): Float64Array {
  if (dtype === "F32") return Float64Array.from(new Float32Array(bytes));
  if (dtype === "F16") return Float64Array.from(new Float16Array(bytes));
  if (dtype !== "BF16") throw new Error(`unexpected dtype ${dtype}`);
  return Float64Array.from(
    new Uint16Array(bytes),
    (bits) => new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!,
  );
}

/** All tensors of a file. */
export async function readTensors(path: string): Promise<Map<string, PlainTensor>> {
  const file = await Deno.readFile(path);
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<string, Entry>;
  const tensors = new Map<string, PlainTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [begin, end] } = entry;
    tensors.set(name, {
      shape,
      values: decode(file.slice(8 + length + begin, 8 + length + end).buffer, dtype),
    });
  }
  return tensors;
}

/** The bytes of a file with F32 tensors; `change` may spoil the header before it is written. */
export function safetensorsBytes(
  tensors: Readonly<
    Record<string, { readonly shape: readonly number[]; readonly values: ArrayLike<number> }>
  >,
  change: (header: Record<string, Entry>) => void = () => {},
): Uint8Array<ArrayBuffer> {
  const header: Record<string, Entry> = {};
  let end = 0;
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape: [...shape], data_offsets: [end, end + 4 * values.length] };
    end += 4 * values.length;
  }
  change(header);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded + end).fill(0x20, 8, 8 + padded);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(text, 8);
  let start = 8 + padded;
  for (const { values } of Object.values(tensors)) {
    bytes.set(new Uint8Array(Float32Array.from(values).buffer), start);
    start += 4 * values.length;
  }
  return bytes;
}
