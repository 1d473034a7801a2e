import { chooseResidency, type StoredModelShapes } from "@lora-loom/model";
import type { Device } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { MemoryChoice } from "../recipe/recipe.ts";
import { deviceTraits } from "./machine.ts";
import { gib } from "./plan_memory.ts";

/**
 * Refuses what leads gradients back through the model where its weights are streamed, or would be, or exceed the device's limit.
 *
 * @param what needs the gradients, as the recipe calls it
 * @param where the base model's folder
 * @throws {MergeError} `weights_streamed`, `not_enough_device_memory`
 */
export function requireResidentWeights(
  what: string,
  device: Device,
  { parameters }: Pick<StoredModelShapes, "parameters">,
  { weights, deviceGib }: MemoryChoice,
  where: string,
): void {
  const bytes = deviceTraits(device, 0).elementBytes * parameters;
  const needs = `${what} needs gradients, and these need all weights on the device at once: ${gib(bytes)}`;
  if (deviceGib !== undefined && bytes > deviceGib * 2 ** 30) {
    throw new MergeError(
      "not_enough_device_memory",
      `${needs}; memory.device_gib allows ${deviceGib} GiB`,
      `leave ${what} out, or raise memory.device_gib if the device has more`,
      where,
    );
  }
  const isStreamed = weights === "streamed" ||
    weights === "auto" && deviceGib === undefined &&
      chooseResidency("auto", device, parameters) === "streamed";
  if (!isStreamed) return;
  throw new MergeError(
    "weights_streamed",
    `${needs}; streamed weights are there a stage at a time`,
    `leave ${what} out, or set memory.weights to resident where the device has that much`,
    where,
  );
}
