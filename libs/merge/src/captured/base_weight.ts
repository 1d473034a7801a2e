import { type BaseWeights, openBaseWeights, type StoredTensor } from "@lora-loom/formats";
import type { Device, Tensor } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { PlannedModule } from "../plan/plan.ts";
import { captureKey } from "./open_captures.ts";

/** Base weights W0 by module, read one at a time. */
export class BaseWeightReader implements Disposable {
  readonly #model: BaseWeights;
  readonly #weights: ReadonlyMap<string, StoredTensor>;

  private constructor(model: BaseWeights) {
    this.#model = model;
    this.#weights = new Map([...model.weights].map(([name, tensor]) => [captureKey(name), tensor]));
  }

  /** @throws {FormatError} what {@linkcode openBaseWeights} throws */
  static async open(directory: string): Promise<BaseWeightReader> {
    return new BaseWeightReader(await openBaseWeights(directory));
  }

  /**
   * Refuses a model that lacks one of the modules, or has it in another shape.
   *
   * @throws {MergeError} `base_weight_missing`
   */
  check(modules: readonly PlannedModule[]): void {
    for (const { name, inFeatures, outFeatures } of modules) {
      const tensor = this.#weights.get(captureKey(name));
      const [rows = 0, ...rest] = tensor?.shape ?? [];
      const columns = rest.reduce((product, size) => product * size, 1);
      if (tensor && rows === outFeatures && columns === inFeatures) continue;
      const found = tensor ? `has the shape [${tensor.shape.join(", ")}] there` : "is not there";
      throw new MergeError(
        "base_weight_missing",
        `adaptive_weights: full reads the base weight of ${name}, [${outFeatures}, ${inFeatures}], which ${found}`,
        "name the model that the adapters were trained on as base_model, or set adaptive_weights to delta",
        `${this.#model.path}: ${name}`,
      );
    }
  }

  /** W0 `[out, in]` on the device; the caller's. */
  async read(device: Device, { name, inFeatures, outFeatures }: PlannedModule): Promise<Tensor> {
    const values = await this.#weights.get(captureKey(name))!.readFloat32();
    return device.upload(values, [outFeatures, inFeatures], "f32");
  }

  [Symbol.dispose](): void {
    this.#model.close();
  }
}
