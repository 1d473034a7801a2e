import {
  type CpuTensor,
  defineOperation,
  elementCount,
  type Kernel,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

/** How far and in what manner {@linkcode adam} moves. */
export interface AdamStep {
  readonly learningRate: number;
  /** Decay of the running means of gradients and of their squares. */
  readonly betas: readonly [first: number, second: number];
  /** Number of this step, from 1. */
  readonly step: number;
  /** Keeps quotients finite. Default 1e-8. */
  readonly epsilon?: number;
}

const kernel: Kernel = {
  name: "adam",
  buffers: [
    { name: "gradient", element: "f32", access: "read" },
    { name: "value", element: "f32", access: "read_write" },
    { name: "mean", element: "f32", access: "read_write" },
    { name: "square", element: "f32", access: "read_write" },
  ],
  params: [
    ["count", "u32"],
    ["rate", "f32"],
    ["beta_mean", "f32"],
    ["beta_square", "f32"],
    ["grow_mean", "f32"],
    ["grow_square", "f32"],
    ["epsilon", "f32"],
  ],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let g = gradient[i];
  let m = params.beta_mean * mean[i] + (1.0 - params.beta_mean) * g;
  let s = params.beta_square * square[i] + (1.0 - params.beta_square) * g * g;
  mean[i] = m;
  square[i] = s;
  value[i] -= params.rate * m * params.grow_mean / (sqrt(s * params.grow_square) + params.epsilon);
}`,
};

/** What corrects the running means for having started at zero. */
function growth({ betas: [first, second], step }: AdamStep): readonly [mean: number, square: number] {
  return [1 / (1 - first ** step), 1 / (1 - second ** step)];
}

function check(value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor): number {
  for (const [name, tensor] of Object.entries({ gradient, mean, square })) {
    requireShape(tensor, value.shape, name, "adam");
  }
  return elementCount(value.shape);
}

/**
 * One step of Adam (arXiv 1412.6980, algorithm 1), in place. All tensors have one shape.
 *
 * @param value what is learnt
 * @param mean running mean of the gradients; zeros before the first step
 * @param square running mean of their squares; zeros before the first step
 */
export const adam: (value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: AdamStep) => void =
  defineOperation<[Tensor, Tensor, Tensor, Tensor, AdamStep], void>({
    name: "adam",
    kernels: [kernel],
    gpu(device, value, gradient, mean, square, step) {
      const count = check(value, gradient, mean, square);
      const { learningRate, betas, epsilon = 1e-8 } = step;
      device.dispatch(
        kernel,
        [gradient, value, mean, square],
        [count, learningRate, ...betas, ...growth(step), epsilon],
        grid(count, LANES),
      );
    },
    cpu(_device, value, gradient, mean, square, step) {
      const count = check(value, gradient, mean, square);
      const { learningRate, betas: [first, second], epsilon = 1e-8 } = step;
      const [growMean, growSquare] = growth(step);
      const [values, gradients, means, squares] = [value, gradient, mean, square].map((tensor) =>
        (tensor as CpuTensor).floats
      ) as [Float64Array, Float64Array, Float64Array, Float64Array];
      for (let i = 0; i < count; i++) {
        means[i] = first * means[i]! + (1 - first) * gradients[i]!;
        squares[i] = second * squares[i]! + (1 - second) * gradients[i]! ** 2;
        values[i]! -= learningRate * means[i]! * growMean / (Math.sqrt(squares[i]! * growSquare) + epsilon);
      }
    },
  });
