import type { ModelWeights } from "@lora-loom/formats";
import { type Device, readsHalves, type Tensor } from "@lora-loom/tensor";
import { type Architecture, type LinearRole, rolesOf } from "./architecture.ts";
import type { DecoderConfig } from "./config.ts";
import { DecoderLayout } from "./decoder_layout.ts";
import { EmbeddingRows } from "./embedding_rows.ts";
import { notHeld } from "./errors.ts";
import { Holds } from "./holds.ts";
import { loadNorms, loadSmallWeights } from "./load_weights.ts";
import { findWeight, WeightLoader, type WeightRequest } from "./weight_loader.ts";
import { WeightReader } from "./weight_reader.ts";
import type { DecoderWeights, LayerWeights, Linear, SmallWeights } from "./weights.ts";

/**
 * A decoder's weights, of which norms and biases alone are on the device from the start. Matrices are read from the files when they are
 * held, and what is expected next is read meanwhile.
 *
 * All weights are looked for at once, so that what is missing is found before the work begins; that they are finite is seen when
 * they are first held.
 *
 * @param stored stays open until the weights are disposed, which closes it
 * @param asStored whether matrices stay in the type in which they are stored. By default where products read them so
 * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`, `non_finite`
 */
export async function streamWeights(
  device: Device,
  architecture: Architecture,
  config: DecoderConfig,
  stored: ModelWeights,
  asStored: boolean = readsHalves(device),
): Promise<DecoderWeights> {
  const layout = new DecoderLayout(architecture, config);
  for (const request of [layout.embeddings, layout.head, ...layout.matrices()]) findWeight(stored, request);
  const loader = new WeightLoader(device, stored);
  try {
    const small = await loadSmallWeights(loader, layout);
    const layers: Omit<LayerWeights, "linears">[] = [];
    const biases = new Map<string, Tensor>();
    for (let layer = 0; layer < config.layers; layer++) {
      layers.push(await loadNorms(loader, layout, layer));
      for (const role of rolesOf(architecture)) {
        const { bias } = layout.linear(layer, role);
        if (bias) biases.set(keyOf(layer, role), await loader.take(bias));
      }
    }
    await loader.checkFinite();
    return new StreamedWeights(loader, layout, small, layers, biases, asStored);
  } catch (error) {
    loader[Symbol.dispose]();
    throw error;
  }
}

/** One matrix on the device. */
interface HeldMatrix extends Disposable {
  readonly tensor: Tensor;
}

const HEAD = "head";

class StreamedWeights implements DecoderWeights {
  readonly residency = "streamed";
  readonly finalNorm: Tensor;
  readonly finalNormBias?: Tensor;
  readonly positions?: Tensor;
  readonly #matrices = new Holds<HeldMatrix>();
  readonly #embeddings: EmbeddingRows;
  readonly #reader = new WeightReader();
  readonly #layers: readonly LayerWeights[];
  /** Names of matrices that were seen to be finite. */
  readonly #checked = new Set<string>();

  constructor(
    /** Of what is on the device all the time. */
    readonly loader: WeightLoader,
    readonly layout: DecoderLayout,
    small: SmallWeights,
    layers: readonly Omit<LayerWeights, "linears">[],
    biases: ReadonlyMap<string, Tensor>,
    readonly asStored: boolean,
  ) {
    const { device, stored } = loader;
    this.finalNorm = small.finalNorm;
    if (small.finalNormBias) this.finalNormBias = small.finalNormBias;
    if (small.positions) this.positions = small.positions;
    this.#embeddings = new EmbeddingRows(device, stored, layout.embeddings);
    this.#layers = layers.map((norms, layer) => {
      const linears = rolesOf(layout.architecture).map((role) =>
        [role, this.#linear(layer, role, biases.get(keyOf(layer, role)))] as const
      );
      return { ...norms, linears: Object.fromEntries(linears) as Record<LinearRole, Linear> };
    });
  }

  get head(): Tensor {
    return this.#held(HEAD, this.layout.head);
  }

  layer(index: number): LayerWeights {
    return this.#layers[index]!;
  }

  embed(tokens: Uint32Array): Tensor {
    return this.#embeddings.of(tokens);
  }

  async holdLinears(layer: number, roles: readonly LinearRole[]): Promise<Disposable> {
    using held = new DisposableStack();
    for (const role of roles) {
      const { weight } = this.layout.linear(layer, role);
      held.use(await this.#matrices.hold(keyOf(layer, role), () => this.#load(weight)));
    }
    return held.move();
  }

  holdEmbeddings(tokens: Uint32Array): Promise<Disposable> {
    return this.#embeddings.hold(tokens);
  }

  holdHead(): Promise<Disposable> {
    return this.#matrices.hold(HEAD, () => this.#load(this.layout.head));
  }

  expect(layer: number, roles: readonly LinearRole[]): void {
    for (const role of roles) {
      const { weight } = this.layout.linear(layer, role);
      if (this.#matrices.get(keyOf(layer, role))) continue;
      const tensor = findWeight(this.loader.stored, weight);
      this.#reader.readAhead(tensor, weight.transposed ? [0, tensor.shape[0]!] : weight.rows!);
    }
  }

  [Symbol.dispose](): void {
    this.#reader.forget();
    this.#matrices.clear();
    this.#embeddings[Symbol.dispose]();
    this.loader[Symbol.dispose]();
    this.loader.stored.close();
  }

  /** Asks for its matrix only when it is used. */
  #linear(layer: number, role: LinearRole, bias: Tensor | undefined): Linear {
    const weight = () => this.#held(keyOf(layer, role), this.layout.linear(layer, role).weight);
    return {
      get weight() {
        return weight();
      },
      ...(bias && { bias }),
    };
  }

  #held(key: string, { name }: WeightRequest): Tensor {
    const matrix = this.#matrices.get(key);
    if (matrix) return matrix.tensor;
    throw notHeld(name);
  }

  async #load(request: WeightRequest): Promise<HeldMatrix> {
    const loader = new WeightLoader(this.loader.device, this.loader.stored, this.#reader);
    try {
      const tensor = await loader.take({ ...request, asStored: this.asStored });
      const key = `${request.name} ${request.rows}`;
      if (!this.#checked.has(key)) await loader.checkFinite();
      this.#checked.add(key);
      return { tensor, [Symbol.dispose]: () => loader[Symbol.dispose]() };
    } catch (error) {
      loader[Symbol.dispose]();
      throw error;
    }
  }
}

function keyOf(layer: number, role: LinearRole): string {
  return `${layer} ${role}`;
}
