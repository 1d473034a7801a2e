/** IterIS on small models with random weights: what it solves for, against the equations written out in float64. */
import { assert, assertEquals } from "@std/assert";
import { openAdapter } from "@lora-loom/formats";
import {
  iteris,
  iterisPlus,
  type Journal,
  type Sequence,
  type SolvedStage,
  type Task,
} from "@lora-loom/iteris";
import { type BaseModel, type Delta, type Deltas, loadDeltas, openModel, type Stage } from "@lora-loom/model";
import { CpuDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians, seeded } from "@lora-loom/testing";
import { repositoryPath } from "../support/paths.ts";

const FAMILIES = repositoryPath("tests/fixtures/families");
const ALPHA = 1e-3;

type Matrix = readonly (readonly number[])[];

function matrixOf(values: ArrayLike<number>, columns: number): Matrix {
  return Array.from(
    { length: values.length / columns },
    (_, row) => Array.from({ length: columns }, (_, column) => values[row * columns + column]!),
  );
}

function product(x: Matrix, y: Matrix): number[][] {
  return x.map((row) =>
    y[0]!.map((_, column) => row.reduce((sum, value, i) => sum + value * y[i]![column]!, 0))
  );
}

function transposed(x: Matrix): number[][] {
  return x[0]!.map((_, column) => x.map((row) => row[column]!));
}

function combined(x: Matrix, y: Matrix, factor: number): number[][] {
  return x.map((row, i) => row.map((value, j) => value + factor * y[i]![j]!));
}

function norm(x: Matrix): number {
  return Math.hypot(...x.flat());
}

/** What a stage reads, and the stream before it. */
interface Seen {
  readonly input: Matrix;
  readonly stream: Matrix;
}

/** Leads the sequences through all stages. */
async function observed(
  device: CpuDevice,
  model: BaseModel,
  sequences: readonly Sequence[],
  deltas: Deltas,
): Promise<Map<Stage, Seen>> {
  const seen = new Map<Stage, Seen>();
  let state = model.begin(
    sequences.map(({ tokens }) => tokens),
    sequences.map(({ answerStart }) => answerStart),
  );
  for (const stage of model.stages) {
    const [input, stream] = [state.input, state.stream];
    seen.set(stage, {
      input: matrixOf(await device.download(input), input.shape[1]!),
      stream: matrixOf(await device.download(stream), stream.shape[1]!),
    });
    state = model.advance(stage, state, deltas);
  }
  return seen;
}

/** The diagonal of D_i: all tokens alike, but for a decoder's row of each answer's last token, which it never reads. */
function diagonal(sequences: readonly Sequence[], reads: Stage["reads"]): number[] {
  const counts = sequences.flatMap(({ tokens, answerStart }) =>
    reads === "answer"
      ? [...new Array<number>(tokens.length - answerStart).fill(1), 0]
      : new Array<number>(reads === "prompt" ? answerStart : tokens.length).fill(1)
  );
  const total = counts.reduce((sum, count) => sum + count);
  return counts.map((count) => count / total);
}

async function dense(device: CpuDevice, { a, b }: Delta): Promise<Matrix> {
  const [left, right] = [await device.download(b), await device.download(a)];
  return product(matrixOf(left, b.shape[1]!), matrixOf(right, a.shape[1]!));
}

function randomSequences(seed: number): Sequence[] {
  const random = seeded(seed);
  return Array.from({ length: 16 }, () => {
    const answerStart = 2 + Math.floor(random() * 6);
    const tokens = Uint32Array.from(
      { length: answerStart + 1 + Math.floor(random() * 4) },
      () => Math.floor(3 + random() * 60),
    );
    return { tokens, answerStart };
  });
}

/** The adapter that comes with the model, and another with random factors in the same places. */
async function makeTasks(device: CpuDevice, folder: string): Promise<Task[]> {
  using adapter = await openAdapter(`${folder}/adapter`);
  const first = await loadDeltas(device, adapter);
  let seed = 50;
  const other = [...first].map(([module, { a, b }]) =>
    [module, {
      a: device.upload(gaussians(a.shape[0]! * a.shape[1]!, seed++).map((x) => 0.3 * x), a.shape),
      b: device.upload(gaussians(b.shape[0]! * b.shape[1]!, seed++).map((x) => 0.3 * x), b.shape),
    }] as const
  );
  return [
    { name: "first", deltas: first, sequences: randomSequences(1) },
    { name: "second", deltas: new Map(other), sequences: randomSequences(2) },
  ];
}

const CASES = [
  ["iteris", "t5_v1_1"],
  ["iterisPlus", "t5_v1_1"],
  ["iterisPlus", "phi3"],
  ["iterisPlus", "gpt2"],
  ["iterisPlus", "gemma2"],
] as const;

for (const [method, family] of CASES) {
  Deno.test(`${method}() solves every module of ${family} on what the merged modules before it produce`, async () => {
    await using device = new CpuDevice();
    const folder = `${FAMILIES}/${family}`;
    using model = await openModel(device, folder);
    const tasks = await makeTasks(device, folder);
    const { deltas } = method === "iteris"
      ? await iteris({ device, model, tasks, options: { alpha: ALPHA, adaptiveWeights: "none" } })
      // More than any module's rank, so that nothing is cut.
      : await iterisPlus({ device, model, tasks, options: { alpha: ALPHA, rank: 128 } });
    const sites = model.stages.flatMap((stage) => stage.sites);
    assertEquals([...deltas.keys()].sort(), sites.map(({ module }) => module).sort());
    const experts = await Promise.all(
      tasks.map((task) => observed(device, model, task.sequences, task.deltas)),
    );
    const merged = await Promise.all(tasks.map((task) => observed(device, model, task.sequences, deltas)));
    for (const stage of model.stages) {
      for (const { module, inFeatures, writesStream } of stage.sites) {
        const base = matrixOf(await device.download(model.weight(module)), inFeatures);
        let left = base.map((row) => row.map(() => 0)), right = left;
        const solved = await dense(device, deltas.get(module)!);
        for (const [index, task] of tasks.entries()) {
          const weights = diagonal(task.sequences, stage.reads);
          const [expert, now] = [experts[index]!.get(stage)!, merged[index]!.get(stage)!];
          const weighted = now.input.map((row, i) => row.map((value) => value * weights[i]!));
          const gram = product(transposed(now.input), weighted);
          const own = await dense(device, task.deltas.get(module)!);
          let target = product(expert.input, transposed(own));
          let pull = norm(product(transposed(expert.input), weighted));
          if (method === "iterisPlus") {
            target = combined(target, product(combined(expert.input, now.input, -1), transposed(base)), 1);
            if (writesStream) target = combined(target, combined(expert.stream, now.stream, -1), 1);
            pull = norm(gram);
          }
          left = combined(combined(left, product(solved, gram), 1), solved, ALPHA * norm(gram));
          right = combined(combined(right, product(transposed(target), weighted), 1), own, ALPHA * pull);
        }
        assert(norm(right) > 0);
        assertRelativelyClose(left.flat(), right.flat(), 1e-8, module);
      }
    }
  });
}

for (const family of ["t5", "gemma3", "phi3", "gpt2", "qwen2"]) {
  Deno.test(`iterisPlus() gives a single adapter of ${family} back`, async () => {
    await using device = new CpuDevice();
    using model = await openModel(device, `${FAMILIES}/${family}`);
    const [task] = await makeTasks(device, `${FAMILIES}/${family}`);
    const { deltas } = await iterisPlus({ device, model, tasks: [task!] });
    for (const [module, delta] of task!.deltas) {
      const expected = (await dense(device, delta)).flat();
      assertRelativelyClose((await dense(device, deltas.get(module)!)).flat(), expected, 1e-8, module);
    }
  });
}

Deno.test("iteris() reaches on a T5 by sweep what it reaches by iterating", async () => {
  await using device = new CpuDevice();
  using model = await openModel(device, `${FAMILIES}/t5`);
  const tasks = await makeTasks(device, `${FAMILIES}/t5`);
  const samples = 8;
  const once = await iteris({ device, model, tasks, options: { samples } });
  const iterations = model.stages.length;
  const often = await iteris({ device, model, tasks, options: { samples, schedule: "jacobi", iterations } });
  for (const [module, delta] of once.deltas) {
    const expected = (await dense(device, delta)).flat();
    assertRelativelyClose((await dense(device, often.deltas.get(module)!)).flat(), expected, 1e-8, module);
  }
});

/** Keeps stages in memory, up to a number of them: as a merge leaves them that was killed then. */
function journalOf(stages: Map<string, SolvedStage>, most: number): Journal {
  return {
    holds: (_pass, { name }) => stages.has(name),
    replay: (_pass, { name }) => Promise.resolve(stages.get(name)!),
    record(_pass, { name }, solved) {
      if (stages.size < most) stages.set(name, solved);
      return Promise.resolve();
    },
  };
}

Deno.test("iterisPlus() gives the same bits for a T5 when it goes on in the encoder, between, and in the decoder", async () => {
  await using device = new CpuDevice();
  using model = await openModel(device, `${FAMILIES}/t5`);
  const tasks = await makeTasks(device, `${FAMILIES}/t5`);
  const options = { samples: 4, rank: 3 };
  const whole = await iterisPlus({ device, model, tasks, options });
  const between = model.stages.findIndex(({ reads }) => reads === "answer");
  for (const most of [2, between - 1, between, between + 1, model.stages.length - 1]) {
    const stages = new Map<string, SolvedStage>();
    await iterisPlus({ device, model, tasks, options, journal: journalOf(stages, most) });
    const { deltas, report } = await iterisPlus({
      device,
      model,
      tasks,
      options,
      journal: journalOf(stages, most),
    });
    assertEquals(report, whole.report);
    for (const [module, { a, b }] of whole.deltas) {
      assertEquals(await device.download(deltas.get(module)!.a), await device.download(a), module);
      assertEquals(await device.download(deltas.get(module)!.b), await device.download(b), module);
    }
  }
});
