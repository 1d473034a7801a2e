import { assert, assertEquals, assertRejects } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { mergeToy, type Method } from "./test_support/merge_toy.ts";
import { IterisError } from "./errors.ts";
import { type HostTask, SMALL, ToyModel, toyTask, toyWeights, uploadTask } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 1);
const first = toyTask(toy, { name: "first", rank: 2, samples: 6, seed: 1 });
const second = toyTask(toy, { name: "second", rank: 2, samples: 6, seed: 2 });

async function assertFails(
  code: string,
  where: string,
  tasks: readonly HostTask[],
  method: Method,
  base = toy,
): Promise<void> {
  const error = await assertRejects(() => mergeToy(base, tasks, method), IterisError);
  assertEquals(error.code, code);
  assert(error.where.includes(where), `${error.where} names ${where}`);
  assert(error.message.length > 0 && error.fix.length > 0);
}

/** The task with one module's factors replaced. */
function changed(
  task: HostTask,
  module: string,
  change: Partial<{ rank: number; a: Float64Array<ArrayBuffer> }>,
): HostTask {
  return { ...task, deltas: new Map([...task.deltas, [module, { ...task.deltas.get(module)!, ...change }]]) };
}

Deno.test("iteris() refuses to merge nothing", () => assertFails("no_tasks", "", [], { iteris: {} }));

Deno.test("iteris() says too_few_samples when a task has less text than was asked for", async () => {
  await assertFails("too_few_samples", "second", [first, { ...second, sequences: [] }], { iteris: {} });
  await assertFails("too_few_samples", "first", [first, second], { iteris: { samples: 7 } });
  const four = { ...second, sequences: second.sequences.slice(0, 4) };
  await assertFails("too_few_samples", "second", [first, four], { plus: { alpha: "auto" } });
});

Deno.test("iteris() says invalid_sequence when a sample is empty or its answer starts outside", async () => {
  for (const [tokens, answerStart] of [[[], 0], [[1, 2], 3], [[1, 2], -1]] as const) {
    const broken = { ...second, sequences: [{ tokens: Uint32Array.from(tokens), answerStart }] };
    await assertFails("invalid_sequence", "second", [first, broken], { iteris: {} });
  }
});

Deno.test("iteris() says singular_system when there are fewer rows than inputs and alpha is 0", async () => {
  const few = [first, second].map((task) => ({ ...task, sequences: task.sequences.slice(0, 1) }));
  const short = few.map((task) => ({
    ...task,
    sequences: [{ tokens: task.sequences[0]!.tokens.slice(0, 3), answerStart: 2 }],
  }));
  await assertFails("singular_system", "layers.0.q", short, { iteris: { alpha: 0 } });
});

Deno.test("iteris() says not_finite_activations when the base model overflows, and names task and stage", async () => {
  const modules = new Map(toy.modules);
  modules.set("layers.0.o", toy.modules.get("layers.0.o")!.map(() => NaN));
  await assertFails("not_finite_activations", "first, layers.1.in", [first, second], { iteris: {} }, {
    ...toy,
    modules,
  });
});

Deno.test("iteris() says not_finite_adapter when factors hold NaN", async () => {
  const a = first.deltas.get("layers.0.q")!.a.map((value, i) => i === 3 ? NaN : value);
  await assertFails("not_finite_adapter", "first, layers.0.q", [changed(first, "layers.0.q", { a })], {
    iteris: {},
  });
});

Deno.test("iteris() says unknown_module when the adapter belongs to another base model", async () => {
  const foreign = {
    ...first,
    deltas: new Map([...first.deltas, ["layers.9.q", first.deltas.get("layers.0.q")!]]),
  };
  await assertFails("unknown_module", "layers.9.q", [foreign], { iteris: {} });
});

Deno.test("iteris() says shape_mismatch when the adapter's factors do not fit the base model", async () => {
  const wider = toyTask(toyWeights({ ...SMALL, hidden: 8 }, 1), {
    name: "wide",
    rank: 2,
    samples: 6,
    seed: 1,
  });
  const delta = wider.deltas.get("layers.0.o")!;
  const foreign = { ...first, deltas: new Map([...first.deltas, ["layers.0.o", delta]]) };
  await assertFails("shape_mismatch", "layers.0.o", [foreign], { iteris: {} });
});

Deno.test("iteris() says invalid_weight when a weight is not above zero", async () => {
  for (const weight of [0, -1, NaN, Infinity]) {
    await assertFails("invalid_weight", "first", [{ ...first, weight }, second], { iteris: {} });
  }
});

Deno.test("iterisPlus() says no_answer_tokens when only answers count and there are none", async () => {
  const mute = {
    ...first,
    sequences: first.sequences.map(({ tokens }) => ({ tokens, answerStart: tokens.length })),
  };
  await assertFails("no_answer_tokens", "first", [mute, second], { plus: { tokenWeight: 0 } });
});

Deno.test("iteris() says invalid_option and names the option", async () => {
  const cases: readonly (readonly [string, Method])[] = [
    ["alpha", { iteris: { alpha: -1 } }],
    ["alpha", { iteris: { alpha: NaN } }],
    ["rank", { iteris: { rank: 0 } }],
    ["samples", { iteris: { samples: 1.5 } }],
    ["iterations", { iteris: { iterations: 0 } }],
    ["tolerance", { iteris: { tolerance: -1 } }],
    ["schedule", { iteris: { schedule: "gauss" as "sweep" } }],
    ["adaptiveWeights", { iteris: { adaptiveWeights: "some" as "full" } }],
    ["truncation", { plus: { truncation: "best" as "plain" } }],
    ["precision", { plus: { precision: "half" as "single" } }],
    ["tokenWeight", { plus: { tokenWeight: 1.5 } }],
    ["drift", { plus: { drift: 1 as unknown as boolean } }],
    ["stream", { plus: { stream: "no" as unknown as boolean } }],
  ];
  for (const [option, method] of cases) await assertFails("invalid_option", option, [first, second], method);
});

Deno.test("iteris() ends when its signal is aborted", async () => {
  const controller = new AbortController();
  const progress = () => controller.abort(new Error("enough"));
  await assertRejects(
    () => mergeToy(toy, [first, second], { iteris: {} }, { signal: controller.signal, progress }),
    Error,
    "enough",
  );
});

Deno.test("iteris() gives its device memory back when it fails half-way", async () => {
  const idle = new CpuDevice();
  new ToyModel(idle, toy);
  for (const task of [first, second]) uploadTask(idle, toy, task);
  for (const [method, stages] of [[{ iteris: {} }, 3], [{ iteris: { schedule: "jacobi" } }, 6]] as const) {
    const device = new CpuDevice();
    const controller = new AbortController();
    const progress = ({ done }: { done: number }) => done === stages && controller.abort(new Error("enough"));
    const options = { device, signal: controller.signal, progress };
    await assertRejects(() => mergeToy(toy, [first, second], method, options), Error, "enough");
    assertEquals(device.memory.bytes, idle.memory.bytes);
  }
});

Deno.test("iteris() reports its progress stage by stage", async () => {
  const seen: string[] = [];
  const progress = (step: { stage: string; done: number; total: number; iteration: number }) => {
    seen.push(`${step.iteration} ${step.stage} ${step.done}/${step.total}`);
  };
  await mergeToy(toy, [first, second], { iteris: { schedule: "jacobi", iterations: 2 } }, { progress });
  assertEquals(seen, [
    "1 layers.0.in 1/8",
    "1 layers.0.out 2/8",
    "1 layers.1.in 3/8",
    "1 layers.1.out 4/8",
    "2 layers.0.in 5/8",
    "2 layers.0.out 6/8",
    "2 layers.1.in 7/8",
    "2 layers.1.out 8/8",
  ]);
});
