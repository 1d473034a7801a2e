/** Every kernel of the backward operations on the software driver against its float64 twin, and the twins against finite differences. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertRelativelyClose, gaussians, seeded } from "@lora-loom/testing";
import { CpuDevice, type Device, type GpuDevice, type Tensor } from "@lora-loom/tensor";
import { causalSpans, causalViewers } from "../batch.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";
import { adam } from "./adam.ts";
import { attention } from "./attention.ts";
import { attentionBackward } from "./attention_backward.ts";
import { dispatchDivergence, divergence } from "./divergence.ts";
import { dispatchDrawnScores, drawnScores } from "./drawn_scores.ts";
import { rmsNorm } from "./rms_norm.ts";
import { dispatchRmsNormBackward, rmsNormBackward } from "./rms_norm_backward.ts";
import { siluMul } from "./silu_mul.ts";
import { siluMulBackward } from "./silu_mul_backward.ts";

const cpu = new CpuDevice();
const VARIANTS = ["invocation", "workgroup"] as const;

/** float32 noise, so that both devices start from the same numbers. */
function noise(shape: readonly number[], seed: number, scale = 1): Float64Array<ArrayBuffer> {
  const count = shape.reduce((product, size) => product * size, 1);
  return gaussians(count, seed).map((value) => Math.fround(scale * value));
}

async function read(tensor: Tensor): Promise<ArrayLike<number>> {
  return await tensor.device.download(tensor);
}

function gpuTest(name: string, body: (gpu: GpuDevice) => Promise<void>): void {
  Deno.test(name, async () => {
    await using gpu = await openSoftwareDevice();
    await body(gpu);
  });
}

function inner(u: ArrayLike<number>, v: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < u.length; i++) sum += u[i]! * v[i]!;
  return sum;
}

/** Checks ⟨gradient, direction⟩ of `values` against the central difference of ⟨forward, weights⟩. */
async function assertDerivative(
  values: Float64Array,
  gradient: ArrayLike<number>,
  weights: ArrayLike<number>,
  forward: (values: Float64Array<ArrayBuffer>) => Tensor,
): Promise<void> {
  const direction = gaussians(values.length, 77);
  const at = async (step: number) =>
    inner(
      await read(forward(Float64Array.from(values, (value, i) => value + step * direction[i]!))),
      weights,
    );
  const expected = (await at(1e-5) - await at(-1e-5)) / 2e-5;
  assertAlmostEquals(inner(gradient, direction), expected, 1e-6 * (1 + Math.abs(expected)));
}

gpuTest(
  "rmsNormBackward() adds the norm's gradient, in both variants, for whole rows and for heads",
  async (gpu) => {
    for (const [rows, width, gainWidth] of [[1, 1, 1], [65, 129, 129], [5, 688, 688], [9, 60, 12]] as const) {
      const shape = [rows, width];
      const values = noise(shape, width, 3),
        gains = noise([gainWidth], 5),
        at = noise(shape, 6),
        held = noise(shape, 7);
      const on = (device: Device, run: typeof rmsNormBackward): Tensor => {
        const into = device.upload(held, shape);
        run(
          device.upload(values, shape),
          device.upload(gains, [gainWidth]),
          device.upload(at, shape),
          1e-5,
          into,
        );
        return into;
      };
      const expected = await read(on(cpu, rmsNormBackward));
      assertRelativelyClose(await read(on(gpu, rmsNormBackward)), expected, 2e-6);
      for (const variant of VARIANTS) {
        const run: typeof rmsNormBackward = (...args) => dispatchRmsNormBackward(gpu, variant, ...args);
        assertRelativelyClose(await read(on(gpu, run)), expected, 2e-6, variant);
      }
      const gradient = Float64Array.from(expected, (value, i) => value - held[i]!);
      await assertDerivative(
        values,
        gradient,
        at,
        (moved) => rmsNorm(cpu.upload(moved, shape), cpu.upload(gains, [gainWidth]), 1e-5),
      );
    }
  },
);

gpuTest("siluMulBackward() gives both gradients, and stays finite far from zero", async (gpu) => {
  const shape = [63, 65];
  const gates = noise(shape, 3, 4), ups = noise(shape, 4), at = noise(shape, 5);
  const on = (device: Device) =>
    siluMulBackward(device.upload(gates, shape), device.upload(ups, shape), device.upload(at, shape));
  const [actual, expected] = [on(gpu), on(cpu)];
  for (const side of ["gate", "up"] as const) {
    assertRelativelyClose(await read(actual[side]), await read(expected[side]), 1e-6, side);
  }
  await assertDerivative(
    gates,
    await read(expected.gate),
    at,
    (moved) => siluMul(cpu.upload(moved, shape), cpu.upload(ups, shape)),
  );
  await assertDerivative(
    ups,
    await read(expected.up),
    at,
    (moved) => siluMul(cpu.upload(gates, shape), cpu.upload(moved, shape)),
  );
  const ones = () => gpu.upload(new Float32Array(5).fill(1), [5]);
  const far = siluMulBackward(gpu.upload(Float32Array.of(-1e30, -100, 0, 100, 1e4), [5]), ones(), ones());
  assertEquals([...await read(far.gate) as Float32Array].map((value) => Math.round(2 * value) + 0), [
    0,
    0,
    1,
    2,
    2,
  ]);
  assert([...await read(far.up) as Float32Array].every(Number.isFinite));
});

gpuTest("attentionBackward() agrees with its twin, and that with finite differences", async (gpu) => {
  for (
    const [lengths, queryHeads, keyValueHeads, headDim, window] of [
      [[1], 1, 1, 4, undefined],
      [[5, 1, 9], 6, 2, 12, undefined],
      [[7, 2, 9], 2, 1, 8, 3],
      [[70], 2, 2, 64, undefined],
    ] as const
  ) {
    const heads = { queryHeads, keyValueHeads, headDim };
    const rows = lengths.reduce((sum: number, length) => sum + length, 0);
    const shapes = [queryHeads, keyValueHeads, keyValueHeads].map((count) => [rows, count * headDim]);
    const values = shapes.map((shape, i) => noise(shape, 20 + i));
    const at = noise(shapes[0]!, 23);
    const forward = (device: Device, [q, k, v]: readonly Float64Array[]) => {
      const tensors = [q, k, v].map((data, i) => device.upload(data!, shapes[i]!)) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      const spans = device.upload(causalSpans(lengths, window), [rows, 2]);
      return { tensors, spans, output: attention(...tensors, spans, heads) };
    };
    const on = (device: Device) => {
      const { tensors, spans, output } = forward(device, values);
      const viewers = device.upload(causalViewers(lengths, window), [rows, 2]);
      return attentionBackward(...tensors, output, device.upload(at, shapes[0]!), spans, viewers, heads);
    };
    const [actual, expected] = [on(gpu), on(cpu)];
    for (const [index, side] of (["queries", "keys", "values"] as const).entries()) {
      const wanted = await read(expected[side]);
      assertRelativelyClose(
        await read(actual[side]),
        wanted,
        rows === 1 && side !== "values" ? 1e-5 : 3e-6,
        side,
      );
      await assertDerivative(
        values[index]!,
        wanted,
        at,
        (moved) => forward(cpu, values.map((data, i) => i === index ? moved : data)).output,
      );
    }
  }
});

gpuTest("divergence() gives loss and gradient in both variants", async (gpu) => {
  for (const [rows, width] of [[1, 1], [3, 300], [65, 37]] as const) {
    const shape = [rows, width];
    const logits = noise(shape, 31, 4), targets = noise(shape, 32, 4);
    const factors = noise([rows], 33).map(Math.abs);
    const operands = (device: Device, own: Float64Array<ArrayBuffer> = logits) =>
      [device.upload(own, shape), device.upload(targets, shape), device.upload(factors, [rows])] as const;
    const expected = divergence(...operands(cpu), 2);
    const losses = await read(expected.losses), gradient = await read(expected.gradient);
    assert([...losses as Float64Array].every((loss) => loss >= -1e-12), "no divergence is negative");
    const found = [divergence(...operands(gpu), 2)];
    for (const variant of VARIANTS) found.push(dispatchDivergence(gpu, variant, ...operands(gpu), 2));
    for (const actual of found) {
      assertRelativelyClose(await read(actual.losses), losses, 1e-5);
      assertRelativelyClose(await read(actual.gradient), gradient, 1e-5);
    }
    await assertDerivative(
      logits,
      gradient,
      new Float64Array(rows).fill(1),
      (moved) => divergence(...operands(cpu, moved), 2).losses,
    );
  }
});

gpuTest("drawnScores() draws what the running sum of the shares holds, in both variants", async (gpu) => {
  for (const [rows, width] of [[1, 1], [40, 300], [5, 1037]] as const) {
    const logits = noise([rows, width], 36, 3);
    const random = seeded(5);
    const draws = Float64Array.from({ length: rows }, () => Math.fround(0.999 * random()));
    const operands = (device: Device) =>
      [device.upload(logits, [rows, width]), device.upload(draws, [rows]), 3] as const;
    const expected = await read(drawnScores(...operands(cpu)));
    // By the definition, on the host.
    for (let row = 0; row < rows; row++) {
      const raised = Array.from(
        logits.subarray(row * width, (row + 1) * width),
        (value) => Math.exp(value / 3),
      );
      const total = raised.reduce((sum, value) => sum + value, 0);
      const running = raised.map((_, c) =>
        raised.slice(0, c + 1).reduce((sum, value) => sum + value, 0) / total
      );
      const drawn = running.findIndex((share) => share > draws[row]!);
      raised.forEach((value, c) =>
        assertAlmostEquals(expected[row * width + c]!, (c === drawn ? 1 : 0) - value / total, 1e-12)
      );
    }
    const found = [drawnScores(...operands(gpu))];
    for (const variant of VARIANTS) found.push(dispatchDrawnScores(gpu, variant, ...operands(gpu)));
    for (const actual of found) assertRelativelyClose(await read(actual), expected, 1e-5);
  }
});

Deno.test("divergence() is zero, with a zero gradient, between equals", async () => {
  const logits = cpu.upload(noise([2, 9], 34), [2, 9]);
  const { losses, gradient } = divergence(logits, logits, cpu.upload(Float64Array.of(1, 2), [2]), 0.5);
  assertRelativelyClose(await read(losses), [0, 0], 1e-15);
  assertRelativelyClose(await read(gradient), new Float64Array(18), 1e-15);
});

gpuTest("adam() takes the steps that the paper's algorithm takes", async (gpu) => {
  const start = noise([7], 41), gradients = [1, 2, 3].map((seed) => noise([7], 50 + seed));
  // arXiv 1412.6980, algorithm 1, with its own names.
  const theta = start.slice(), m = new Float64Array(7), v = new Float64Array(7);
  gradients.forEach((g, index) => {
    const t = index + 1;
    for (let i = 0; i < 7; i++) {
      m[i] = 0.9 * m[i]! + 0.1 * g[i]!;
      v[i] = 0.98 * v[i]! + 0.02 * g[i]! ** 2;
      theta[i]! -= 0.01 * t * (m[i]! / (1 - 0.9 ** t)) / (Math.sqrt(v[i]! / (1 - 0.98 ** t)) + 1e-8);
    }
  });
  for (const device of [cpu, gpu]) {
    const value = device.upload(start, [7]), mean = device.zeros([7]), square = device.zeros([7]);
    gradients.forEach((g, index) =>
      adam(value, device.upload(g, [7]), mean, square, {
        learningRate: 0.01 * (index + 1),
        betas: [0.9, 0.98],
        step: index + 1,
      })
    );
    assertRelativelyClose(await read(value), theta, device === cpu ? 1e-14 : 1e-6);
  }
});
