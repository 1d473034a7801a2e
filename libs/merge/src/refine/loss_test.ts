/** The loss and its gradients in float64, on the example model, against plain sums and finite differences. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { openAdapter } from "@lora-loom/formats";
import {
  type Delta,
  type Deltas,
  differentiable,
  disposeDeltas,
  FactorGradients,
  loadDeltas,
  openModel,
} from "@lora-loom/model";
import { CpuDevice, type Tensor } from "@lora-loom/tensor";
import { fileURLToPath } from "node:url";
import type { Expert } from "../calibrated/session.ts";
import { type Loss, lossOfBatch, readLoss } from "./loss.ts";
import { minibatch, pack } from "./minibatch.ts";
import type { TaskData } from "./task_data.ts";
import { openTeachers } from "./teachers.ts";

const EXAMPLE = fileURLToPath(new URL("../../../../examples/tiny-llama/", import.meta.url));
const SETTINGS = { divergence: 0.5, temperature: 2 };
const SIZES = [1, 2, 3, 4];
const MODULE = "model.layers.1.self_attn.v_proj";

function task(name: string, sequences: readonly (readonly number[])[]): TaskData {
  return {
    name,
    weight: 1,
    sequences: sequences.map((tokens) => ({
      tokens: Uint32Array.from(tokens),
      answerStart: tokens.length - 2,
    })),
    heldOut: { name, prompts: [], answers: [] },
  };
}

const TASKS = [task("language", [[5, 70, 800, 9, 2], [1500, 33, 44, 2]]), task("speech", [[7, 8, 1999, 2]])];

async function read(tensor: Tensor): Promise<number[]> {
  return [...await tensor.device.download(tensor)];
}

function logSoftmax(values: readonly number[]): number[] {
  const top = Math.max(...values);
  const log = top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
  return values.map((value) => value - log);
}

Deno.test("lossOfBatch() is the sum that it says it is, with the gradients that belong to it", async () => {
  await using device = new CpuDevice();
  using opened = await openModel(device, `${EXAMPLE}base`);
  const model = differentiable(opened, "the test", "");
  const experts: Expert[] = [];
  for (const name of ["language", "speech"]) {
    using adapter = await openAdapter(`${EXAMPLE}adapters/${name}`);
    experts.push({ name, calibration: "", weight: 1, deltas: await loadDeltas(device, adapter) });
  }
  const teachers = await openTeachers(model, experts, TASKS, 1000, () => {});
  const [batch] = pack(minibatch(TASKS, { sequences: 12 }, 1, 1), TASKS, 0.1, 1000);
  const streams = teachers.streams(batch!.members);
  const { a, b } = experts[0]!.deltas.get(MODULE)!;
  const [startA, startB] = [await read(a), await read(b)];
  const deltasAt = (movedA: readonly number[], movedB: readonly number[]): Deltas =>
    new Map<string, Delta>([[MODULE, {
      a: device.upload(Float64Array.from(movedA), a.shape),
      b: device.upload(Float64Array.from(movedB), b.shape),
    }]]);
  const lossAt = async (deltas: Deltas): Promise<{ loss: Loss; gradients: number[][] }> => {
    using gradients = new FactorGradients(deltas);
    const loss = await readLoss([lossOfBatch(model, batch!, streams, SIZES, deltas, SETTINGS, gradients)]);
    const sums = gradients.sums.get(MODULE)!;
    return { loss, gradients: [await read(sums.a), await read(sums.b)] };
  };

  const start = deltasAt(startA, startB);
  const { loss, gradients } = await lossAt(start);
  assertEquals(gradients.map(({ length }) => length), [startA.length, startB.length]);

  // The same by plain sums over what the model says of single sequences.
  let states = 0, divergence = 0, row = 0;
  for (const { task, sequence } of batch!.members) {
    const tokens = sequence.tokens.length;
    using own = model.trace([sequence.tokens], start);
    using wanted = model.trace([sequence.tokens], experts[task]!.deltas);
    for (const [layer, size] of SIZES.entries()) {
      const [x, y] = [await read(own.streams[layer]!), await read(wanted.streams[layer]!)];
      x.forEach((value, i) =>
        states += batch!.weights[row + Math.floor(i / 256)]! * (value - y[i]!) ** 2 / size
      );
    }
    using ownLogits = model.forward([sequence.tokens], start),
      wantedLogits = model.forward([sequence.tokens], experts[task]!.deltas);
    const [z, target] = [await read(ownLogits), await read(wantedLogits)];
    for (const position of [tokens - 3, tokens - 2]) {
      const shares = (logits: number[]) =>
        logSoftmax(
          logits.slice(position * 2048, (position + 1) * 2048).map((value) => value / SETTINGS.temperature),
        );
      const [q, p] = [shares(z), shares(target)];
      divergence += SETTINGS.divergence / 6 *
        p.reduce((sum, log, v) => sum + Math.exp(log) * (log - q[v]!), 0);
    }
    row += tokens;
  }
  assertAlmostEquals(loss.states, states, 1e-10 * states);
  assertAlmostEquals(loss.divergence, divergence, 1e-9);

  for (const [which, values] of [startA, startB].entries()) {
    const direction = gaussians(values.length, 9 + which);
    const at = async (step: number) => {
      const moved = values.map((value, i) => value + step * direction[i]!);
      const deltas = which === 0 ? deltasAt(moved, startB) : deltasAt(startA, moved);
      const { loss } = await lossAt(deltas);
      disposeDeltas(deltas);
      return loss.states + loss.divergence;
    };
    const expected = (await at(1e-5) - await at(-1e-5)) / 2e-5;
    const actual = gradients[which]!.reduce((sum, value, i) => sum + value * direction[i]!, 0);
    assertAlmostEquals(actual, expected, 1e-5 * Math.abs(expected), which === 0 ? "A" : "B");
  }
});
