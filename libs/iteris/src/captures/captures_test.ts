import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { relativeError } from "@lora-loom/testing";
import type { Delta } from "../base_model.ts";
import { IterisError } from "../errors.ts";
import type { SiteReport } from "../report.ts";
import { testOnGpu } from "../test_support/devices.ts";
import { denseOf, mergeToy } from "../test_support/merge_toy.ts";
import { denseDeltas, type Matrix, times, trace, transpose } from "../test_support/oracle.ts";
import { type HostTask, SMALL, toyTask, toyWeights, uploadTask } from "../test_support/toy_model.ts";
import type { CapturedInputs, CapturedSite } from "./captured_site.ts";
import { type CapturedOptions, solveCaptured } from "./solve_captured.ts";

const toy = toyWeights(SMALL, 1);
const tasks = [
  toyTask(toy, { name: "first", rank: 2, samples: 12, seed: 1 }),
  toyTask(toy, { name: "second", rank: 1, samples: 9, seed: 2 }),
  toyTask(toy, { name: "third", rank: 3, samples: 14, seed: 3, without: ["layers.0.k", "layers.1.o"] }),
];
const inputs = tasks.map((task) => trace(toy, task.sequences, denseDeltas(toy, task)).inputs);

/** The rows of a module's inputs under each adapter. */
const rowsOf = (module: string): Matrix[] => inputs.map((own) => own.get(module)!);

function asRows(device: Device, x: Matrix): CapturedInputs {
  return {
    kind: "inputs",
    rows: x.length,
    async *batches(): AsyncIterable<Tensor> {
      const half = Math.ceil(x.length / 2);
      for (const part of [x.slice(0, half), x.slice(half)]) {
        yield await Promise.resolve(
          device.upload(Float64Array.from(part.flat()), [part.length, x[0]!.length]),
        );
      }
    },
  };
}

function asGram(x: Matrix): CapturedInputs {
  return { kind: "gram", values: Float64Array.from(times(transpose(x), x).flat()) };
}

/** A module as captures have it, each task's inputs in the form that `form` gives them. */
function siteOf(
  device: Device,
  module: string,
  form: (x: Matrix, task: number) => CapturedInputs,
  { base = true, of = tasks }: { base?: boolean; of?: readonly HostTask[] } = {},
): CapturedSite {
  const weight = toy.modules.get(module)!;
  const inFeatures = module.endsWith(".o") ? toy.inner : toy.hidden;
  const outFeatures = weight.length / inFeatures;
  return {
    module,
    inFeatures,
    outFeatures,
    baseWeight: base ? device.upload(weight, [outFeatures, inFeatures]) : undefined,
    tasks: of.map((task, index) => ({
      name: task.name,
      weight: task.weight ?? 1,
      delta: uploadTask(device, toy, task).deltas.get(module) as Delta | undefined,
      inputs: form(rowsOf(module)[tasks.indexOf(task)]!, index),
    })),
  };
}

const alpha = 1e-4;
const FORMS = { rows: (x: Matrix) => asRows(new CpuDevice(), x), "Gram matrices": asGram };

for (const [what, form] of Object.entries(FORMS)) {
  for (const adaptiveWeights of ["full", "delta", "none"] as const) {
    if (what !== "rows" && adaptiveWeights === "none") continue;
    Deno.test(`solveCaptured() from ${what} equals the first solve of iteris() with ${adaptiveWeights} weights`, async () => {
      const device = new CpuDevice();
      for (const rank of [undefined, 2]) {
        const options = { alpha, adaptiveWeights, ...(rank ? { rank } : {}) };
        const native = await mergeToy(toy, tasks, {
          iteris: { ...options, schedule: "jacobi", iterations: 1 },
        });
        for (const expected of native.report.sites) {
          const { module } = expected;
          const { delta, report } = await solveCaptured(device, siteOf(device, module, form), options);
          const [found, wanted] = [await denseOf(delta), await denseOf(native.deltas.get(module)!)];
          assertLess(relativeError(found.flat(), wanted.flat()), 1e-9, module);
          assertReports(report, expected, what === "rows");
        }
      }
    });
  }
}

function assertReports(found: SiteReport, expected: SiteReport, isScaled: boolean): void {
  assertAlmostEquals(found.rank.loss, expected.rank.loss, 1e-10);
  for (const [index, task] of found.tasks.entries()) {
    const { task: name, hasModule, errors, adaptiveWeight, gramNorm } = expected.tasks[index]!;
    assertEquals([task.task, task.hasModule], [name, hasModule]);
    for (const key of ["sum", "mean", "merged"] as const) {
      // Where an adapter lacks the module the errors are absolute, and so of the scale of the Gram matrix.
      if (hasModule || isScaled) assertAlmostEquals(task.errors[key], errors[key], 1e-8);
    }
    assertAlmostEquals(task.adaptiveWeight * task.gramNorm / (adaptiveWeight * gramNorm), 1, 1e-9);
  }
}

testOnGpu("solveCaptured() on the GPU agrees with float64 in its outputs", async (device) => {
  const host = new CpuDevice();
  for (const module of toy.modules.keys()) {
    const x = rowsOf(module).flat();
    const expected = await denseOf((await solveCaptured(host, siteOf(host, module, asGram))).delta);
    for (const form of [(rows: Matrix) => asRows(device, rows), asGram]) {
      const { delta } = await solveCaptured(device, siteOf(device, module, form));
      const outputs = [await denseOf(delta), expected].map((w) => times(x, transpose(w)).flat());
      assertLess(relativeError(outputs[0]!, outputs[1]!), 2e-5, module);
    }
  }
});

Deno.test("solveCaptured() gives a lone adapter back, whatever the number of rows in a Gram matrix", async () => {
  const device = new CpuDevice();
  const site = siteOf(device, "layers.0.q", asGram, { base: false, of: tasks.slice(0, 1) });
  const { delta, report } = await solveCaptured(device, site, { adaptiveWeights: "delta" });
  const expected = denseDeltas(toy, tasks[0]!).get("layers.0.q")!;
  assertLess(relativeError((await denseOf(delta)).flat(), expected.flat()), 1e-9);
  assertLess(report.tasks[0]!.errors.merged, 1e-7);
});

Deno.test("solveCaptured() weighs a task without the module by the identity when there is no base weight", async () => {
  const device = new CpuDevice();
  const module = "layers.0.k";
  const { report } = await solveCaptured(device, siteOf(device, module, asGram, { base: false }), {
    adaptiveWeights: "delta",
  });
  const third = rowsOf(module)[2]!;
  const energy = third.flat().reduce((sum, value) => sum + value * value, 0);
  assertAlmostEquals(report.tasks[2]!.adaptiveWeight, toy.hidden / energy, 1e-9 * toy.hidden / energy);
});

/** The Gram matrix of the second task, spoilt. */
function spoilt(change: (values: Float64Array, n: number) => void) {
  return (x: Matrix, task: number): CapturedInputs => {
    const gram = asGram(x);
    if (task === 1) change((gram as { values: Float64Array }).values, x[0]!.length);
    return gram;
  };
}

const REFUSED: readonly (readonly [
  what: string,
  code: string,
  fix: string,
  form: (x: Matrix, task: number) => CapturedInputs,
  options?: CapturedOptions,
])[] = [
  ["an entry is NaN", "not_finite_capture", "float32", spoilt((values) => values[3] = NaN)],
  [
    "rows hold infinity",
    "not_finite_capture",
    "float32",
    (x, task) => asRows(new CpuDevice(), task === 1 ? [x[0]!.map(() => Infinity)] : x),
  ],
  ["a matrix is not symmetric", "gram_not_symmetric", "x.T @ x", spoilt((values) => values[1]! += 100)],
  ["a diagonal is negative", "gram_not_positive", "x.T @ x", spoilt((values) => values[0] = -1)],
  [
    "a matrix has negative eigenvalues",
    "gram_not_positive",
    "x.T @ x",
    spoilt((values, n) => values[1] = values[n] = 2 * Math.sqrt(values[0]! * values[n + 1]!)),
  ],
  [
    "a diagonal entry is zero and its row is not",
    "gram_not_positive",
    "x.T @ x",
    spoilt((values) => values[0] = 0),
  ],
  [
    "rows have another width",
    "capture_shape",
    "the base model",
    (x) => asRows(new CpuDevice(), transpose(x)),
  ],
  [
    "a matrix has another width",
    "capture_shape",
    "the base model",
    () => ({ kind: "gram", values: new Float64Array(4) }),
  ],
  ["rows are not known and nothing makes up for it", "unknown_rows", "delta", asGram, {
    adaptiveWeights: "none",
  }],
  ["alpha is auto", "invalid_option", "number", asGram, { alpha: "auto" as unknown as number }],
];
for (const [what, code, fix, form, options] of REFUSED) {
  Deno.test(`solveCaptured() answers ${code} when ${what}`, async () => {
    const device = new CpuDevice();
    const error = await assertRejects(
      () => solveCaptured(device, siteOf(device, "layers.0.q", form), options),
      IterisError,
    );
    assertEquals(error.code, code, error.message);
    assertStringIncludes(error.fix, fix);
    assert(error.message.length > 0 && error.where.length > 0);
  });
}

Deno.test("solveCaptured() answers no_base_weight when full weights are asked for without it", async () => {
  const device = new CpuDevice();
  const site = siteOf(device, "layers.0.q", asGram, { base: false });
  const error = await assertRejects(() => solveCaptured(device, site), IterisError);
  assertEquals([error.code, error.where], ["no_base_weight", "layers.0.q"]);
  assertStringIncludes(error.fix, "delta");
});

Deno.test("solveCaptured() answers no_tasks when no adapter has the module", async () => {
  const device = new CpuDevice();
  const site = siteOf(device, "layers.0.k", asGram, { of: [tasks[2]!] });
  const error = await assertRejects(() => solveCaptured(device, site), IterisError);
  assertEquals([error.code, error.where], ["no_tasks", "layers.0.k"]);
});

Deno.test("solveCaptured() takes a Gram matrix that was rounded to float16", async () => {
  const device = new CpuDevice();
  const form = (x: Matrix): CapturedInputs => ({
    kind: "gram",
    values: Float64Array.from((asGram(x) as { values: Float64Array }).values, Math.f16round),
  });
  const [rounded, exact] = [
    await solveCaptured(device, siteOf(device, "layers.0.q", form), { alpha: 1e-2 }),
    await solveCaptured(device, siteOf(device, "layers.0.q", asGram), { alpha: 1e-2 }),
  ];
  assertLess(relativeError((await denseOf(rounded.delta)).flat(), (await denseOf(exact.delta)).flat()), 0.05);
});
