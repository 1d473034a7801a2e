/** Every kernel variant on the software driver against its float64 twin, at sizes that fill no workgroup evenly. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, seeded } from "@lora-loom/testing";
import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { causalSpans } from "../batch.ts";
import { ModelError } from "../errors.ts";
import { rotaryFrequencies, rotaryTable } from "../rope.ts";
import { gpuTest, noise, read } from "../test_support/operations.ts";
import { activate } from "./activation.ts";
import { addBias } from "./add_bias.ts";
import { argmax, dispatchArgmax } from "./argmax.ts";
import { attention, dispatchAttention } from "./attention.ts";
import { countNonFinite, dispatchCountNonFinite } from "./count_non_finite.ts";
import { dispatchLayerNorm, layerNorm } from "./layer_norm.ts";
import { dispatchRmsNorm, rmsNorm } from "./rms_norm.ts";
import { rotary } from "./rotary.ts";
import { dispatchGather, gatherRows, scatterRows } from "./rows.ts";
import { siluMul } from "./silu_mul.ts";
import { softCap } from "./soft_cap.ts";

const cpu = new CpuDevice();
const VARIANTS = ["invocation", "workgroup"] as const;

/** Uploads the same data to two devices. */
function both(devices: readonly Device[], data: ArrayBufferView, shape: readonly number[]): Tensor[] {
  return devices.map((device) => device.upload(data, shape));
}

gpuTest("gatherRows() and scatterRows() move rows unchanged", async (gpu) => {
  for (const [rows, width] of [[1, 1], [7, 65], [129, 63]] as const) {
    const source = noise([rows, width], rows);
    const random = seeded(rows);
    const picks = Uint32Array.from({ length: rows + 5 }, () => Math.floor(random() * rows));
    const gathered = both([gpu, cpu], source, [rows, width]).map((tensor) =>
      gatherRows(tensor, tensor.device.upload(picks, [picks.length]))
    );
    assertEquals(gathered[0]!.shape, [rows + 5, width]);
    assertEquals([...await read(gathered[0]!) as Float32Array], [
      ...await read(gathered[1]!) as Float64Array,
    ]);

    const places = Uint32Array.from({ length: rows }, (_, row) => 2 * (rows - 1 - row) + 1);
    const targets = both([gpu, cpu], noise([2 * rows, width], 99), [2 * rows, width]);
    for (const target of targets) {
      scatterRows(target.device.upload(source, [rows, width]), target.device.upload(places, [rows]), target);
    }
    const scattered = [...await read(targets[0]!) as Float32Array];
    assertEquals(scattered, [...await read(targets[1]!) as Float64Array]);
    assertEquals(scattered.slice(-width), [...source.subarray(0, width)]);
  }
});

gpuTest("gatherRows() reads a matrix larger than one binding window by window", async (gpu) => {
  const [rows, width] = [203, 12];
  const source = gpu.upload(noise([rows, width], 8), [rows, width]);
  const picks = gpu.upload(Uint32Array.of(202, 0, 64, 63, 65, 127, 128, 191), [8]);
  const expected = await read(gatherRows(source, picks));
  // Rows of 48 bytes start at a multiple of 256 every 16 rows; 3200 bytes hold 66 of them, so windows have 64.
  const limits = { ...gpu.limits, maxBindingBytes: 3200, windowAlignmentBytes: 256 };
  assertEquals(await read(dispatchGather(gpu, limits, source, picks)), expected);
  const tooSmall = { ...limits, maxBindingBytes: 512 };
  assertEquals(
    assertThrows(() => dispatchGather(gpu, tooSmall, source, picks), ModelError).code,
    "binding_too_large",
  );
});

gpuTest("rmsNorm() agrees with its twin in both variants, for whole rows and for heads", async (gpu) => {
  for (
    const [rows, width, gainWidth] of [[1, 1, 1], [3, 7, 7], [65, 129, 129], [5, 688, 688], [
      9,
      60,
      12,
    ]] as const
  ) {
    const [x, exact] = both([gpu, cpu], noise([rows, width], width, 3), [rows, width]) as [Tensor, Tensor];
    const [gain, exactGain] = both([gpu, cpu], noise([gainWidth], 5), [gainWidth]) as [Tensor, Tensor];
    const expected = await read(rmsNorm(exact, exactGain, 1e-5));
    assertRelativelyClose(await read(rmsNorm(x, gain, 1e-5)), expected, 1e-6);
    for (const variant of VARIANTS) {
      assertRelativelyClose(
        await read(dispatchRmsNorm(gpu, variant, x, gain, 1e-5)),
        expected,
        1e-6,
        variant,
      );
    }
  }
});

gpuTest("rmsNorm() gives zeros, not NaN, for a row of zeros", async (gpu) => {
  const gain = gpu.upload(Float32Array.of(1, 1, 1), [3]);
  for (const variant of VARIANTS) {
    assertEquals([
      ...await read(dispatchRmsNorm(gpu, variant, gpu.zeros([1, 3]), gain, 1e-5)) as Float32Array,
    ], [0, 0, 0]);
  }
});

gpuTest("rotary() agrees with its twin at far positions", async (gpu) => {
  for (const [rows, heads, headDim] of [[1, 1, 4], [17, 3, 12], [33, 2, 64]] as const) {
    const width = heads * headDim;
    const table = rotaryTable(
      rotaryFrequencies({ theta: 10000, scaling: { type: "default" } }, headDim),
      5000,
    );
    const positions = Uint32Array.from({ length: rows }, (_, row) => (row * 1237) % 5000);
    const [actual, expected] = both([gpu, cpu], noise([rows, width], rows), [rows, width]).map((x) =>
      rotary(x, x.device.upload(positions, [rows]), x.device.upload(table, [5000, headDim]))
    ) as [Tensor, Tensor];
    assertRelativelyClose(await read(actual), await read(expected), 2e-7);
  }
});

gpuTest("siluMul() agrees with its twin, and stays finite far from zero", async (gpu) => {
  for (const shape of [[1, 1], [63, 65]]) {
    const gates = both([gpu, cpu], noise(shape, 3, 4), shape), ups = both([gpu, cpu], noise(shape, 4), shape);
    const [actual, expected] = gates.map((gate, i) => siluMul(gate, ups[i]!)) as [Tensor, Tensor];
    assertRelativelyClose(await read(actual), await read(expected), 1e-6);
  }
  const far = Float32Array.of(-1e30, -1e4, -100, -80, 0, 80, 1e30);
  const [gate, up] = [gpu.upload(far, [7]), gpu.upload(new Float32Array(7).fill(1), [7])];
  const values = [...await read(siluMul(gate, up)) as Float32Array];
  values.forEach((value, i) =>
    assert(Math.abs(value - Math.max(far[i]!, 0)) <= 1e-6 * Math.abs(far[i]!), `${far[i]} → ${value}`)
  );
});

gpuTest("activate() agrees with its twin, and stays finite far from zero", async (gpu) => {
  for (const activation of ["silu", "gelu_tanh", "relu"] as const) {
    const [x, exact] = both([gpu, cpu], noise([63, 65], 6, 4), [63, 65]) as [Tensor, Tensor];
    activate(activation, x);
    activate(activation, exact);
    assertRelativelyClose(await read(x), await read(exact), 1e-6, activation);
    const far = Float32Array.of(-1e30, -1e4, -100, 100, 1e4, 1e12);
    const ends = gpu.upload(far, [6]);
    activate(activation, ends);
    const values = [...await read(ends) as Float32Array];
    values.forEach((value, i) =>
      assert(Math.abs(value - Math.max(far[i]!, 0)) <= 1e-6 * Math.abs(far[i]!), `${activation} ${far[i]}`)
    );
  }
});

gpuTest("softCap() agrees with its twin, and bounds what is far from zero", async (gpu) => {
  const data = noise([9, 33], 7, 40);
  data.set([1e30, -1e30], 5);
  const [x, exact] = both([gpu, cpu], data, [9, 33]) as [Tensor, Tensor];
  softCap(x, 30);
  softCap(exact, 30);
  const values = await read(x);
  assertRelativelyClose(values, await read(exact), 1e-6);
  assertEquals([values[5], values[6]], [30, -30]);
});

gpuTest("layerNorm() agrees with its twin in both variants, also far from zero mean", async (gpu) => {
  for (const [rows, width] of [[1, 1], [3, 7], [65, 129], [5, 688]] as const) {
    const data = noise([rows, width], width, 3).map((value) => Math.fround(value + 20));
    const [gain, bias] = [noise([width], 5), noise([width], 6)];
    const on = (device: Device, norm: typeof layerNorm) =>
      read(
        norm(
          device.upload(data, [rows, width]),
          device.upload(gain, [width]),
          device.upload(bias, [width]),
          1e-5,
        ),
      );
    const expected = await on(cpu, layerNorm);
    assertRelativelyClose(await on(gpu, layerNorm), expected, 5e-6);
    for (const variant of VARIANTS) {
      const run: typeof layerNorm = (...args) => dispatchLayerNorm(gpu, variant, ...args);
      assertRelativelyClose(await on(gpu, run), expected, 5e-6, variant);
    }
  }
});

gpuTest("addBias() adds to every row in place", async (gpu) => {
  const [bias, into] = [noise([13], 1), noise([17, 13], 2)];
  const targets = both([gpu, cpu], into, [17, 13]);
  for (const target of targets) addBias(target.device.upload(bias, [13]), target);
  assertRelativelyClose(await read(targets[0]!), await read(targets[1]!), 1e-7);
});

gpuTest("argmax() finds the first of the largest in both variants", async (gpu) => {
  for (const [rows, width] of [[1, 1], [5, 3], [65, 257], [3, 2048]] as const) {
    const random = seeded(width);
    // Few distinct values, so that ties are common.
    const data = Float64Array.from({ length: rows * width }, () => Math.floor(random() * 6) - 9);
    const [x, exact] = both([gpu, cpu], data, [rows, width]) as [Tensor, Tensor];
    const expected = Array.from({ length: rows }, (_, row) => {
      const values = [...data.subarray(row * width, (row + 1) * width)];
      return values.indexOf(Math.max(...values));
    });
    assertEquals([...await read(argmax(exact)) as Uint32Array], expected);
    assertEquals([...await read(argmax(x)) as Uint32Array], expected);
    for (const variant of VARIANTS) {
      assertEquals([...await read(dispatchArgmax(gpu, variant, x)) as Uint32Array], expected, variant);
    }
  }
});

gpuTest("countNonFinite() counts NaN and infinities of either sign, and nothing else", async (gpu) => {
  const data = Float32Array.from(
    { length: 1000 },
    (_, i) => i % 7 === 0 ? NaN : i % 11 === 0 ? Infinity : i * 1e35,
  );
  data[1] = -Infinity;
  data[2] = 1e-45;
  const expected = data.filter((value) => !Number.isFinite(value)).length;
  for (const device of [gpu, cpu]) {
    const counts = device.zeros([3], "u32");
    countNonFinite(device.upload(data, [10, 100]), counts, 1);
    countNonFinite(device.upload(new Float32Array(70), [70]), counts, 2);
    assertEquals([...await read(counts) as Uint32Array], [0, expected, 0]);
  }
  const counts = gpu.zeros([1], "u32");
  dispatchCountNonFinite(gpu, 512, gpu.upload(data, [1000]), counts, 0);
  assertEquals([...await read(counts) as Uint32Array], [expected], "in eight windows");
});

gpuTest("kernels cover more work than one axis of a dispatch takes", async (gpu) => {
  const [rows, width] = [70_001, 61];
  const into = gpu.zeros([rows, width]);
  addBias(gpu.upload(Float32Array.from({ length: width }, (_, i) => i), [width]), into);
  const values = await read(into);
  assert(Array.from({ length: rows * width }, (_, i) => values[i] === i % width).every(Boolean));

  // A row that sees itself alone gets its own values.
  const count = 65_600;
  const x = gpu.upload(Float32Array.from({ length: 4 * count }, (_, i) => i), [count, 4]);
  const spans = gpu.upload(Uint32Array.from({ length: 2 * count }, (_, i) => i % 2 === 0 ? i / 2 : 1), [
    count,
    2,
  ]);
  const heads = { queryHeads: 1, keyValueHeads: 1, headDim: 4 };
  const copied = await read(dispatchAttention(gpu, "workgroup", gpu.zeros([count, 4]), x, x, spans, heads));
  assert(Array.from({ length: 4 * count }, (_, i) => copied[i] === i).every(Boolean));
});

const SHAPES = [
  { lengths: [1], heads: { queryHeads: 1, keyValueHeads: 1, headDim: 4 } },
  { lengths: [5, 1, 9], heads: { queryHeads: 6, keyValueHeads: 2, headDim: 12 } },
  { lengths: [70, 3, 129], heads: { queryHeads: 4, keyValueHeads: 2, headDim: 64 } },
  { lengths: [66], heads: { queryHeads: 3, keyValueHeads: 3, headDim: 20 } },
];

gpuTest("attention() agrees with its twin in both variants, over ragged batches", async (gpu) => {
  for (const { lengths, heads } of SHAPES) {
    const rows = lengths.reduce((sum, length) => sum + length);
    const [queryWidth, keyWidth] = [heads.queryHeads * heads.headDim, heads.keyValueHeads * heads.headDim];
    const inputs = (device: Device) =>
      [
        device.upload(noise([rows, queryWidth], 1, 2), [rows, queryWidth]),
        device.upload(noise([rows, keyWidth], 2), [rows, keyWidth]),
        device.upload(noise([rows, keyWidth], 3), [rows, keyWidth]),
        device.upload(causalSpans(lengths), [rows, 2]),
        heads,
      ] as const;
    const expected = await read(attention(...inputs(cpu)));
    assertRelativelyClose(await read(attention(...inputs(gpu))), expected, 2e-6);
    for (const variant of VARIANTS) {
      const actual = await read(dispatchAttention(gpu, variant, ...inputs(gpu)));
      assertRelativelyClose(actual, expected, 2e-6, `${variant} ${heads.headDim}`);
    }
  }
});

gpuTest("attention() agrees with its twin given a scale, a soft cap and biases by distance", async (gpu) => {
  const lengths = [70, 3];
  const heads = { queryHeads: 4, keyValueHeads: 2, headDim: 12, attentionScale: 0.4, attentionSoftCap: 3 };
  const inputs = (device: Device) => {
    const matrix = (columns: number, seed: number) =>
      device.upload(noise([73, columns], seed, 2), [73, columns]);
    const table = device.upload(noise([139, 4], 9), [139, 4]);
    // Each sequence's keys start at position 0, which lies 69 rows of the table after the farthest.
    const origins = lengths.flatMap((length) => Array.from({ length }, (_, position) => 69 - position));
    return [
      matrix(48, 1),
      matrix(24, 2),
      matrix(24, 3),
      device.upload(causalSpans(lengths), [73, 2]),
      heads,
      { table, origins: device.upload(Uint32Array.from(origins), [73]) },
    ] as const;
  };
  const expected = await read(attention(...inputs(cpu)));
  for (const variant of VARIANTS) {
    assertRelativelyClose(
      await read(dispatchAttention(gpu, variant, ...inputs(gpu))),
      expected,
      2e-6,
      variant,
    );
  }
  // Written out for one query: the third row of the second sequence, head 3.
  const [queries, keys, values, , , { table }] = inputs(cpu);
  const at = async (tensor: Tensor, row: number, column: number) =>
    (await cpu.download(tensor))[row * tensor.shape[1]! + column]!;
  const scores = await Promise.all([0, 1, 2].map(async (key) => {
    let dot = 0;
    for (let d = 0; d < 12; d++) dot += await at(queries, 72, 36 + d) * await at(keys, 70 + key, 12 + d);
    return 3 * Math.tanh(0.4 * dot / 3) + await at(table, 69 - 2 + key, 3);
  }));
  const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
  let mixed = 0;
  for (const [key, score] of scores.entries()) {
    mixed += Math.exp(score) / total * await at(values, 70 + key, 12);
  }
  assertRelativelyClose([expected[72 * 48 + 36]!], [mixed], 1e-12);
});

gpuTest("attention() reads only the rows of its span, and stands scores of any size", async (gpu) => {
  const heads = { queryHeads: 1, keyValueHeads: 1, headDim: 4 };
  const keys = Float32Array.of(9e9, 9e9, 9e9, 9e9, 200, 0, 0, 0, -200, 0, 0, 0, 199, 0, 0, 0);
  const values = Float32Array.from({ length: 16 }, (_, i) => i);
  for (const variant of VARIANTS) {
    const result = dispatchAttention(
      gpu,
      variant,
      gpu.upload(Float32Array.of(2, 0, 0, 0, 0, 1, 0, 0), [2, 4]),
      gpu.upload(keys, [4, 4]),
      gpu.upload(values, [4, 4]),
      gpu.upload(Uint32Array.of(1, 3, 3, 1), [2, 2]),
      heads,
    );
    // Scores 200, -200, 199: the weights of rows 1 and 3 are 1 to 1/e.
    const share = 1 / (1 + Math.exp(-1));
    const mixed = [0, 1, 2, 3].map((d) => share * (4 + d) + (1 - share) * (12 + d));
    assertRelativelyClose(await read(result), [...mixed, 12, 13, 14, 15], 1e-6, variant);
  }
});
