import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { CpuDevice, type Tensor } from "@lora-loom/tensor";
import type { Activations, Deltas, Stage } from "./base_model.ts";
import { iterisPlus } from "./iteris_plus.ts";
import { StateStore } from "./streams/state_store.ts";
import { SMALL, ToyModel, toyTask, toyWeights, uploadTask } from "./test_support/toy_model.ts";

/** A toy model that is strict about what is held, and remembers the order. */
class StrictModel extends ToyModel {
  readonly held: string[] = [];
  #stage: Stage | undefined;
  #sequences: readonly Uint32Array[] | undefined;

  hold(part: Stage | readonly Uint32Array[]): Promise<Disposable> {
    if ("index" in part) {
      assertEquals(this.#stage, undefined, "one stage at a time");
      this.#stage = part;
      this.held.push(part.name);
    } else this.#sequences = part;
    return Promise.resolve({
      [Symbol.dispose]: () => {
        if ("index" in part) this.#stage = undefined;
        else this.#sequences = undefined;
      },
    });
  }

  override begin(sequences: readonly Uint32Array[]): Activations {
    assertEquals(this.#sequences, sequences);
    return super.begin(sequences);
  }

  override advance(stage: Stage, at: Activations, deltas: Deltas): Activations {
    assertEquals(this.#stage, stage);
    return super.advance(stage, at, deltas);
  }

  override weight(module: string): Tensor {
    // The model itself asks for weights of the stage that it advances through.
    assertEquals(this.#stage?.sites.some((site) => site.module === module), true, module);
    return super.weight(module);
  }
}

const TOY = toyWeights(SMALL, 3);

function tasksOf(device: CpuDevice, samples: number) {
  return [1, 2].map((seed) =>
    uploadTask(device, TOY, toyTask(TOY, { name: `task ${seed}`, rank: 2, samples, seed }))
  );
}

Deno.test("iterisPlus() holds every stage once a sweep, and only while it computes with it", async () => {
  const device = new CpuDevice();
  const model = new StrictModel(device, TOY);
  await iterisPlus({ device, model, tasks: tasksOf(device, 6), memory: { tokensPerChunk: 10 } });
  assertEquals(model.held, model.stages.map(({ name }) => name));
});

Deno.test("iterisPlus() takes no more memory for four times as many samples", async () => {
  const budget = 4096;
  const few = await memoryOf(16, budget);
  const many = await memoryOf(64, budget);
  assertLessOrEqual(many.host, budget);
  assertGreater(many.files, few.files);
  // A chunk may be a little fuller.
  assertLessOrEqual(many.device, 1.1 * few.device);
});

/** Peaks of a merge: of tensors on the device, of states in host memory, and how many states went to files. */
async function memoryOf(samples: number, hostBytes: number) {
  const device = new CpuDevice();
  const model = new ToyModel(device, TOY);
  const tasks = tasksOf(device, samples);
  const { save } = StateStore.prototype;
  let host = 0;
  let files = 0;
  StateStore.prototype.save = async function (activations) {
    const state = await save.call(this, activations);
    host = Math.max(host, this.hostBytes);
    if (state.file) files++;
    return state;
  };
  try {
    await iterisPlus({ device, model, tasks, memory: { tokensPerChunk: 20, hostBytes } });
  } finally {
    StateStore.prototype.save = save;
  }
  return { device: device.memory.peakBytes, host, files };
}
