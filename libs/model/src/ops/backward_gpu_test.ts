/** Every kernel of the backward operations on the software driver against its float64 twin, and the twins against finite differences. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertRelativelyClose, gaussians, seeded } from "@lora-loom/testing";
import { CpuDevice, type Device, multiply, type Tensor } from "@lora-loom/tensor";
import { causalSpans, causalViewers, positionsOf, tokenCount } from "../batch.ts";
import { fullSpans } from "../t5/batch.ts";
import { gpuTest, noise, read } from "../test_support/operations.ts";
import { activate, type Activation } from "./activation.ts";
import { activationBackward, gatedBackward } from "./activation_backward.ts";
import { adam } from "./adam.ts";
import { attention, type DistanceBias } from "./attention.ts";
import { attentionBackward, dispatchAttentionBackward } from "./attention_backward.ts";
import { dispatchDivergence, divergence } from "./divergence.ts";
import { dispatchDrawnScores, drawnScores } from "./drawn_scores.ts";
import { layerNorm } from "./layer_norm.ts";
import { dispatchLayerNormBackward, layerNormBackward } from "./layer_norm_backward.ts";
import { softCap, softCapBackward } from "./soft_cap.ts";
import { rmsNorm } from "./rms_norm.ts";
import { dispatchRmsNormBackward, rmsNormBackward } from "./rms_norm_backward.ts";

const cpu = new CpuDevice();
const VARIANTS = ["invocation", "workgroup"] as const;

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

const ACTIVATIONS: readonly Activation[] = ["silu", "gelu_tanh", "relu"];
/** Far from zero on both sides, where exponentials overflow, and zero itself. */
const FAR = Float32Array.of(-1e30, -100, 100, 1e4, 1e30);

/** To whole numbers, without negative zeros. */
function rounded(values: ArrayLike<number>): number[] {
  return Array.from(values, (value) => Math.round(value) + 0);
}

gpuTest("gatedBackward() gives both gradients, and stays finite far from zero", async (gpu) => {
  const shape = [63, 65];
  const gates = noise(shape, 3, 4), ups = noise(shape, 4), at = noise(shape, 5);
  for (const activation of ACTIVATIONS) {
    const on = (device: Device) =>
      gatedBackward(
        activation,
        device.upload(gates, shape),
        device.upload(ups, shape),
        device.upload(at, shape),
      );
    const [actual, expected] = [on(gpu), on(cpu)];
    for (const side of ["gate", "up"] as const) {
      assertRelativelyClose(await read(actual[side]), await read(expected[side]), 1e-6, activation);
    }
    const forward = (gate: Float64Array<ArrayBuffer>, up: Float64Array<ArrayBuffer>) => {
      const result = cpu.upload(gate, shape);
      activate(activation, result);
      return multiply(result, cpu.upload(up, shape), { into: result });
    };
    await assertDerivative(gates, await read(expected.gate), at, (moved) => forward(moved, ups));
    await assertDerivative(ups, await read(expected.up), at, (moved) => forward(gates, moved));
    const ones = () => gpu.upload(new Float32Array(5).fill(1), [5]);
    const far = gatedBackward(activation, gpu.upload(FAR, [5]), ones(), ones());
    assertEquals(rounded(await read(far.gate)), [0, 0, 1, 1, 1], activation);
    assert([...await read(far.up) as Float32Array].every(Number.isFinite));
  }
});

gpuTest(
  "layerNormBackward() adds the norm's gradient in both variants, also far from a mean of zero",
  async (gpu) => {
    for (const [rows, width, offset] of [[1, 4, 0], [65, 129, 0], [3, 70, 50]] as const) {
      const shape = [rows, width];
      const values = noise(shape, width, 3).map((value) => Math.fround(value + offset));
      const gains = noise([width], 5), at = noise(shape, 6), held = noise(shape, 7);
      const on = (device: Device, backward: typeof layerNormBackward): Tensor => {
        const into = device.upload(held, shape);
        backward(
          device.upload(values, shape),
          device.upload(gains, [width]),
          device.upload(at, shape),
          1e-5,
          into,
        );
        return into;
      };
      const expected = await read(on(cpu, layerNormBackward));
      assertRelativelyClose(await read(on(gpu, layerNormBackward)), expected, 3e-6);
      for (const variant of VARIANTS) {
        const run: typeof layerNormBackward = (...args) => dispatchLayerNormBackward(gpu, variant, ...args);
        assertRelativelyClose(await read(on(gpu, run)), expected, 3e-6, variant);
      }
      const gradient = Float64Array.from(expected, (value, i) => value - held[i]!);
      await assertDerivative(
        values,
        gradient,
        at,
        (moved) =>
          layerNorm(cpu.upload(moved, shape), cpu.upload(gains, [width]), cpu.upload(gains, [width]), 1e-5),
      );
    }
  },
);

gpuTest("softCapBackward() gives the bound's gradient from what it gave", async (gpu) => {
  const shape = [63, 65];
  const values = noise(shape, 3, 40), at = noise(shape, 5);
  const capped = (device: Device, x: Float64Array<ArrayBuffer> = values) => {
    const result = device.upload(x, shape);
    softCap(result, 30);
    return result;
  };
  const on = (device: Device) => softCapBackward(device.upload(at, shape), capped(device), 30);
  const expected = await read(on(cpu));
  assertRelativelyClose(await read(on(gpu)), expected, 1e-6);
  await assertDerivative(values, expected, at, (moved) => capped(cpu, moved));
});

gpuTest("activationBackward() multiplies by the slope, and stays finite far from zero", async (gpu) => {
  const shape = [63, 65];
  const values = noise(shape, 3, 4), at = noise(shape, 5);
  for (const activation of ACTIVATIONS) {
    const on = (device: Device, x: ArrayLike<number> = values, gradient: ArrayLike<number> = at) => {
      const size = x.length === values.length ? shape : [x.length];
      const result = device.upload(Float64Array.from(gradient), size);
      activationBackward(activation, device.upload(Float64Array.from(x), size), result);
      return result;
    };
    const expected = await read(on(cpu));
    assertRelativelyClose(await read(on(gpu)), expected, 1e-6, activation);
    await assertDerivative(values, expected, at, (moved) => {
      const result = cpu.upload(moved, shape);
      activate(activation, result);
      return result;
    });
    const far = await read(on(gpu, FAR, [1, 1, 1, 1, 1]));
    assertEquals(rounded(far), [0, 0, 1, 1, 1], activation);
  }
});

/** Which rows see which, over a ragged batch. */
interface View {
  readonly rows: number;
  readonly keyRows: number;
  readonly spans: Uint32Array<ArrayBuffer>;
  readonly viewers: Uint32Array<ArrayBuffer>;
  /** Of each query row in its sequence. */
  readonly positions: Uint32Array<ArrayBuffer>;
}

function causal(lengths: readonly number[], window?: number): View {
  const rows = tokenCount(lengths);
  return {
    rows,
    keyRows: rows,
    spans: causalSpans(lengths, window),
    viewers: causalViewers(lengths, window),
    positions: positionsOf(lengths),
  };
}

function full(rows: readonly number[], seen: readonly number[]): View {
  return {
    rows: tokenCount(rows),
    keyRows: tokenCount(seen),
    spans: fullSpans(rows, seen),
    viewers: fullSpans(seen, rows),
    positions: positionsOf(rows),
  };
}

/** Query heads, heads of keys and values, size of a head, then what changes scores. */
type Case = readonly [
  view: View,
  sizes: readonly [number, number, number],
  options?: { readonly attentionScale?: number; readonly attentionSoftCap?: number },
  biased?: boolean,
];

const LENGTHS = [5, 1, 9];
const CASES: Readonly<Record<string, Case>> = {
  "one row": [causal([1]), [1, 1, 4]],
  "grouped heads": [causal(LENGTHS), [6, 2, 12]],
  "a window": [causal([7, 2, 9], 3), [2, 1, 8]],
  "a long sequence": [causal([70]), [2, 2, 64]],
  "scaled and bounded scores": [causal(LENGTHS), [4, 2, 8], { attentionScale: 0.9, attentionSoftCap: 1.5 }],
  "an encoder": [full(LENGTHS, LENGTHS), [2, 2, 12], { attentionScale: 1 }, true],
  "a decoder with biases": [causal([3, 6, 66]), [4, 4, 4], { attentionScale: 1 }, true],
  "attention to other rows": [full([1, 4, 2], [7, 1, 12]), [3, 3, 8], { attentionScale: 1 }],
};

for (const [name, [view, [queryHeads, keyValueHeads, headDim], options, biased]] of Object.entries(CASES)) {
  gpuTest(
    `attentionBackward() agrees with its twin in both variants, and that with finite differences: ${name}`,
    async (gpu) => {
      const heads = { queryHeads, keyValueHeads, headDim, ...options };
      const shapes = [view.rows, view.keyRows, view.keyRows].map((rows, i) => [
        rows,
        (i === 0 ? queryHeads : keyValueHeads) * headDim,
      ]);
      const values = shapes.map((shape, i) => noise(shape, 20 + i));
      const at = noise(shapes[0]!, 23);
      const longest = 1 + view.positions.reduce((most, position) => Math.max(most, position), 0);
      const table = noise([2 * longest - 1, queryHeads], 24, 2);
      const biasOn = (device: Device): DistanceBias | undefined =>
        biased
          ? {
            table: device.upload(table, [2 * longest - 1, queryHeads]),
            origins: device.upload(view.positions.map((position) => longest - 1 - position), [view.rows]),
          }
          : undefined;
      const forward = (device: Device, [q, k, v]: readonly Float64Array[]) => {
        const tensors = [q, k, v].map((data, i) => device.upload(data!, shapes[i]!)) as [
          Tensor,
          Tensor,
          Tensor,
        ];
        const spans = device.upload(view.spans, [view.rows, 2]);
        return { tensors, spans, output: attention(...tensors, spans, heads, biasOn(device)) };
      };
      const on = (device: Device) => {
        const { tensors, spans, output } = forward(device, values);
        const viewers = device.upload(view.viewers, [view.keyRows, 2]);
        const gradient = device.upload(at, shapes[0]!);
        return [...tensors, output, gradient, spans, viewers] as const;
      };
      const expected = attentionBackward(...on(cpu), heads, biasOn(cpu));
      const found = [
        attentionBackward(...on(gpu), heads, biasOn(gpu)),
        ...(["f32", "vec4f"] as const).map((element) =>
          dispatchAttentionBackward(gpu, element, on(gpu), heads, biasOn(gpu))
        ),
      ];
      for (const [index, side] of (["queries", "keys", "values"] as const).entries()) {
        const wanted = await read(expected[side]);
        // A single row's scores have no gradient: what is found is roundoff.
        const tolerance = view.rows === 1 && side !== "values" ? 1e-5 : 3e-6;
        for (const actual of found) assertRelativelyClose(await read(actual[side]), wanted, tolerance, side);
        await assertDerivative(
          values[index]!,
          wanted,
          at,
          (moved) => forward(cpu, values.map((data, i) => i === index ? moved : data)).output,
        );
      }
    },
  );
}

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
