import { type CpuTensor, defineOperation, type Kernel, matrixShape, type Tensor } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const kernel: Kernel = {
  name: "rotary_halves",
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "positions", element: "u32", access: "read" },
    { name: "angles", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["heads", "u32"], ["planes", "u32"], ["turn", "f32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let head = i / params.planes;
  let plane = i - head * params.planes;
  let angle = positions[head / params.heads] * 2u * params.planes + plane;
  let cosine = angles[angle];
  let sine = params.turn * angles[angle + params.planes];
  let at = head * 2u * params.planes + plane;
  let re = x[at];
  let im = x[at + params.planes];
  result[at] = re * cosine - im * sine;
  result[at + params.planes] = im * cosine + re * sine;
}`,
};

/** Options of {@linkcode rotary}. */
export interface RotaryOptions {
  /** Turn back instead, which undoes the rotation; it is also the gradient's way through it. Default false. */
  readonly inverse?: boolean;
}

/**
 * Rotary position embedding: rotates each head's plane (i, i + headDim/2) by the angle of its row's position.
 * `x [rows, heads·headDim]`, `positions` u32 `[rows]`, `angles [maxPositions, headDim]` as `rotaryTable` makes them.
 * The pairing of halves is that of Hugging Face checkpoints.
 */
export const rotary: (
  x: Tensor,
  positions: Tensor,
  angles: Tensor,
  options?: RotaryOptions,
) => Tensor = defineOperation<[Tensor, Tensor, Tensor, RotaryOptions?], Tensor>({
  name: "rotary",
  kernels: [kernel],
  gpu(device, x, positions, angles, { inverse = false } = {}) {
    const { rows, heads, planes } = sizes(x, angles);
    const result = device.empty(x.shape);
    const count = rows * heads * planes;
    const params = [count, heads, planes, inverse ? -1 : 1];
    device.dispatch(kernel, [x, positions, angles, result], params, grid(count, LANES));
    return result;
  },
  cpu(device, x, positions, angles, { inverse = false } = {}) {
    const turn = inverse ? -1 : 1;
    const { rows, heads, planes } = sizes(x, angles);
    const source = (x as CpuTensor).floats, table = (angles as CpuTensor).floats;
    const result = device.zeros(x.shape);
    for (let row = 0; row < rows; row++) {
      const angle = (positions as CpuTensor).data[row]! * 2 * planes;
      for (let head = 0; head < heads; head++) {
        const first = (row * heads + head) * 2 * planes;
        for (let plane = 0; plane < planes; plane++) {
          const cosine = table[angle + plane]!, sine = turn * table[angle + planes + plane]!;
          const re = source[first + plane]!, im = source[first + planes + plane]!;
          result.floats[first + plane] = re * cosine - im * sine;
          result.floats[first + planes + plane] = im * cosine + re * sine;
        }
      }
    }
    return result;
  },
});

function sizes(x: Tensor, angles: Tensor): { rows: number; heads: number; planes: number } {
  const [rows, columns] = matrixShape(x, "rotary");
  const [, headDim] = matrixShape(angles, "rotary");
  return { rows, heads: columns / headDim, planes: headDim / 2 };
}
