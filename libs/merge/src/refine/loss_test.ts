/** The loss and its gradients in float64, on the example models, against plain sums and finite differences. */
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
import { type Reads, rowCount } from "../calibrated/answer_rows.ts";
import type { Expert } from "../calibrated/session.ts";
import { type Loss, lossOfBatch, readLoss } from "./loss.ts";
import { minibatch, pack } from "./minibatch.ts";
import type { TaskData } from "./task_data.ts";
import { openTeachers } from "./teachers.ts";

const EXAMPLES = fileURLToPath(new URL("../../../../examples/", import.meta.url));
const SETTINGS = { divergence: 0.5, temperature: 2 };
/** With a module whose gradient comes by all ways: in the T5 through every cross-attention. */
const MODELS = {
  "tiny-llama": { sizes: [1, 2, 3, 4], module: "model.layers.1.self_attn.v_proj" },
  "tiny-t5": { sizes: [1, 2, 3, 4, 5, 6], module: "encoder.block.1.layer.0.SelfAttention.v" },
};
const VOCABULARY = 2048;

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

for (const [example, { sizes, module }] of Object.entries(MODELS)) {
  Deno.test(`lossOfBatch() is the sum that it says it is of ${example}, with the gradients that belong to it`, async () => {
    await using device = new CpuDevice();
    using opened = await openModel(device, `${EXAMPLES}${example}/base`);
    const model = differentiable(opened, "the test", "");
    const experts: Expert[] = [];
    for (const name of ["language", "speech"]) {
      using adapter = await openAdapter(`${EXAMPLES}${example}/adapters/${name}`);
      experts.push({ name, calibration: "", weight: 1, deltas: await loadDeltas(device, adapter) });
    }
    const teachers = await openTeachers(model, experts, TASKS, 1000, () => {});
    const [batch] = pack(minibatch(TASKS, { sequences: 12 }, 1, 1), TASKS, 0.1, 1000, model.layerReads);
    const streams = teachers.streams(batch!.members);
    const { a, b } = experts[0]!.deltas.get(module)!;
    const [startA, startB] = [await read(a), await read(b)];
    const deltasAt = (movedA: readonly number[], movedB: readonly number[]): Deltas =>
      new Map<string, Delta>([[module, {
        a: device.upload(Float64Array.from(movedA), a.shape),
        b: device.upload(Float64Array.from(movedB), b.shape),
      }]]);
    const lossAt = async (deltas: Deltas): Promise<{ loss: Loss; gradients: number[][] }> => {
      using gradients = new FactorGradients(deltas);
      const loss = await readLoss([lossOfBatch(model, batch!, streams, sizes, deltas, SETTINGS, gradients)]);
      const sums = gradients.sums.get(module)!;
      return { loss, gradients: [await read(sums.a), await read(sums.b)] };
    };

    const start = deltasAt(startA, startB);
    const { loss, gradients } = await lossAt(start);
    assertEquals(gradients.map(({ length }) => length), [startA.length, startB.length]);

    // The same by plain sums over what the model says of single sequences.
    let states = 0, divergence = 0;
    const passed = new Map<Reads, number>();
    for (const { task, sequence } of batch!.members) {
      const answerStarts = [sequence.answerStart];
      using own = model.trace([sequence.tokens], start, { answerStarts });
      using wanted = model.trace([sequence.tokens], experts[task]!.deltas, { answerStarts });
      for (const [layer, size] of sizes.entries()) {
        const reads = model.layerReads[layer];
        const weights = batch!.weights.get(reads)!, first = passed.get(reads) ?? 0;
        const width = own.streams[layer]!.shape[1]!;
        const [x, y] = [await read(own.streams[layer]!), await read(wanted.streams[layer]!)];
        x.forEach((value, i) =>
          states += weights[first + Math.floor(i / width)]! * (value - y[i]!) ** 2 / size
        );
      }
      for (const reads of new Set(model.layerReads)) {
        passed.set(reads, (passed.get(reads) ?? 0) + rowCount(sequence, reads));
      }
      using ownLogits = model.forward([sequence.tokens], start, { answerStarts }),
        wantedLogits = model.forward([sequence.tokens], experts[task]!.deltas, { answerStarts });
      const [z, target] = [await read(ownLogits), await read(wantedLogits)];
      // The last two of the answer's tokens, which are all, are predicted one row before the last and two before.
      const rows = z.length / VOCABULARY;
      for (const row of [rows - 3, rows - 2]) {
        const shares = (logits: number[]) =>
          logSoftmax(
            logits.slice(row * VOCABULARY, (row + 1) * VOCABULARY).map((value) =>
              value / SETTINGS.temperature
            ),
          );
        const [q, p] = [shares(z), shares(target)];
        divergence += SETTINGS.divergence / 6 *
          p.reduce((sum, log, v) => sum + Math.exp(log) * (log - q[v]!), 0);
      }
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
}
