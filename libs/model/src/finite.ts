import type { Tensor } from "@lora-loom/tensor";
import { ModelError } from "./errors.ts";
import { countNonFinite } from "./ops/count_non_finite.ts";
import { withWidened } from "./widened.ts";

/**
 * Checks that no tensor holds NaN or infinity, with one read-back for all of them.
 *
 * @param tensors floats of any type, by the name to use in the error
 * @param fix what the caller can do about it
 * @throws {ModelError} `non_finite` naming the first bad tensor and how many of its elements are bad
 */
export async function assertFinite(tensors: ReadonlyMap<string, Tensor>, fix: string): Promise<void> {
  const [first] = tensors.values();
  if (!first) return;
  using counts = first.device.zeros([tensors.size], "u32");
  [...tensors.values()].forEach((tensor, slot) =>
    withWidened(tensor, (x) => countNonFinite(x, counts, slot))
  );
  const bad = await first.device.download(counts);
  [...tensors].forEach(([name, { shape }], slot) => {
    if (bad[slot] === 0) return;
    throw new ModelError(
      "non_finite",
      `${name} [${shape}] has ${bad[slot]} NaN or infinite elements`,
      fix,
      name,
    );
  });
}
