import { FormatError } from "../../errors.ts";
import { computedTensor } from "../../tensors/derived_tensor.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";
import { checkFloat, checkRank, shapeText } from "./pair.ts";

/**
 * A of a convolution that LoCon stores in Tucker form: down [q, channels, 1, …] and mid [p, q, …kernel] give
 * A[p, i, …k] = Σ_q mid[p, q, …k] · down[q, i], so that ΔW = up · A. Summed in float64, rounded to float32 once.
 *
 * @throws {FormatError} `shape_mismatch`, `unsupported_dtype`, `invalid_rank`
 */
export function foldMid(down: StoredTensor, mid: StoredTensor, where: string): StoredTensor {
  checkFloat(down, where);
  checkFloat(mid, where);
  const [inner, channels, ...ones] = down.shape;
  const [rank, innerOfMid, ...kernel] = mid.shape;
  const fits = inner !== undefined && channels !== undefined && rank !== undefined && inner === innerOfMid &&
    ones.every((size) => size === 1) && kernel.length >= 1 && kernel.length <= 3;
  if (!fits) {
    throw new FormatError(
      "shape_mismatch",
      `lora_down has the shape ${shapeText(down)} and lora_mid ${
        shapeText(mid)
      }; expected [q, in, 1, …] and [p, q, …kernel]`,
      "The adapter is damaged: fetch or save it again.",
      where,
    );
  }
  checkRank(rank, where);
  const area = kernel.reduce((product, size) => product * size, 1);
  return computedTensor(down.name, [rank, channels, ...kernel], async () => {
    const core = await mid.readFloat32();
    const basis = await down.readFloat32();
    return contract(core, basis, { rank, inner, channels, area });
  });
}

interface Extent {
  readonly rank: number;
  readonly inner: number;
  readonly channels: number;
  readonly area: number;
}

function contract(
  core: Float32Array,
  basis: Float32Array,
  { rank, inner, channels, area }: Extent,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(rank * channels * area);
  const sums = new Float64Array(channels * area);
  for (let p = 0; p < rank; p++) {
    sums.fill(0);
    for (let q = 0; q < inner; q++) {
      for (let i = 0; i < channels; i++) {
        const weight = basis[q * channels + i]!;
        for (let k = 0; k < area; k++) sums[i * area + k]! += weight * core[(p * inner + q) * area + k]!;
      }
    }
    result.set(sums, p * channels * area);
  }
  return result;
}
