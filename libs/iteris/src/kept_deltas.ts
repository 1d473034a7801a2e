import { copyTo, disposeDeltas } from "./algebra.ts";
import type { Delta, Stage } from "./base_model.ts";
import { copyInto } from "./ops/copy_into.ts";
import { type Run, solvingDevice } from "./run_context.ts";

/**
 * Room on the device for what a pass leaves behind. It is found before the first stage: were it found stage by stage, what a stage works in
 * would move on from one to the next, and with it all that a device prepares for its memory.
 */
export class KeptDeltas implements Disposable {
  readonly #free = new Map<string, Delta>();

  /** @param stages that are to be solved */
  constructor(readonly run: Run, stages: readonly Stage[]) {
    const { plan, device, settings } = run;
    // Solutions of other ranks are not known to fill it.
    if (settings.drift || settings.stream || settings.rank !== undefined) return;
    for (const stage of stages.filter((stage) => solvingDevice(run, stage) === device)) {
      for (const { site, stacked } of plan.sites.get(stage.index)!) {
        this.#free.set(site.module, {
          a: device.zeros(stacked.a.shape),
          b: device.zeros(stacked.b.shape),
        });
      }
    }
  }

  /** A copy of a solution on the run's device, the caller's. */
  async copyOf(module: string, { a, b }: Delta): Promise<Delta> {
    const { device } = this.run;
    const room = this.#free.get(module);
    if (!room) return { a: await copyTo(device, a), b: await copyTo(device, b) };
    this.#free.delete(module);
    copyInto(a, room.a);
    copyInto(b, room.b);
    return room;
  }

  [Symbol.dispose](): void {
    disposeDeltas(this.#free);
    this.#free.clear();
  }
}
