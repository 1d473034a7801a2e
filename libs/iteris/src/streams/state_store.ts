import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { BYTES_PER_ELEMENT, type Device, elementCount, reshape, type Tensor } from "@lora-loom/tensor";
import type { Activations } from "../base_model.ts";
import { IterisError } from "../errors.ts";

type HostArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** One tensor: a copy on the device, on the host, or its place in the file of its state. */
interface SavedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly arrayType: new (buffer: ArrayBuffer) => HostArray;
  readonly byteLength: number;
  /** Where the state waits in host memory. */
  readonly data?: HostArray;
  /** Where it waits on the device. */
  readonly resident?: Tensor;
}

/** A batch that waits between stages, on entering one. */
export interface SavedState {
  readonly lengths: readonly number[];
  readonly tensors: readonly SavedTensor[];
  /** Where the tensors are, one after the other; absent while they are in memory. */
  readonly file?: string;
}

/**
 * Keeps the states of all streams between stages: on the device up to a budget, in host memory up to another, beyond both in files
 * of a temporary folder. So neither kind of memory grows with the number of samples.
 */
export class StateStore implements AsyncDisposable {
  #deviceBytes = 0;
  readonly #residents = new Set<Tensor>();
  #hostBytes = 0;
  #folder: string | undefined;
  #nextFile = 0;

  constructor(readonly device: Device, readonly hostBudget: number, readonly deviceBudget = 0) {}

  /** Bytes of states in host memory now. */
  get hostBytes(): number {
    return this.#hostBytes;
  }

  /** Copies `activations`; they stay the caller's to dispose. */
  async save(activations: Activations): Promise<SavedState> {
    const needed = sumOf([...activations.tensors.values()], bytesOf);
    if (this.#deviceBytes + needed <= this.deviceBudget) {
      this.#deviceBytes += needed;
      return this.#onDevice(activations);
    }
    const tensors: SavedTensor[] = [];
    for (const [name, tensor] of activations.tensors) tensors.push(await this.#download(name, tensor));
    const state = { lengths: [...activations.lengths], tensors };
    const bytes = byteLength(state);
    if (this.#hostBytes + bytes > this.hostBudget) return await this.#toFile(state);
    this.#hostBytes += bytes;
    return state;
  }

  /** Uploads a state's tensors again; the state stays. */
  async load(state: SavedState): Promise<ReadonlyMap<string, Tensor>> {
    if (isResident(state)) {
      return new Map(state.tensors.map(({ name, resident }) => [name, shared(resident!)]));
    }
    const arrays = state.file ? await arraysOf(state, state.file) : state.tensors.map(({ data }) => data!);
    const tensors = new Map<string, Tensor>();
    for (const [index, { name, shape }] of state.tensors.entries()) {
      tensors.set(name, await this.device.uploadStreamed(arrays[index]!, shape));
    }
    return tensors;
  }

  /** Forgets a state. */
  async release(state: SavedState): Promise<void> {
    if (isResident(state)) {
      this.#deviceBytes -= byteLength(state);
      for (const { resident } of state.tensors) this.#release(resident!);
    } else if (state.file) await rm(state.file, { force: true });
    else this.#hostBytes -= byteLength(state);
  }

  #onDevice({ lengths, tensors }: Activations): SavedState {
    return {
      lengths: [...lengths],
      tensors: [...tensors].map(([name, tensor]) => ({
        name,
        shape: [...tensor.shape],
        arrayType: Float32Array,
        byteLength: bytesOf(tensor),
        resident: this.#keep(tensor),
      })),
    };
  }

  #keep(tensor: Tensor): Tensor {
    const resident = shared(tensor);
    this.#residents.add(resident);
    return resident;
  }

  #release(resident: Tensor): void {
    this.#residents.delete(resident);
    resident.dispose();
  }

  async #download(name: string, tensor: Tensor): Promise<SavedTensor> {
    const data = await this.device.download(tensor);
    return {
      name,
      shape: [...tensor.shape],
      arrayType: data.constructor as SavedTensor["arrayType"],
      byteLength: data.byteLength,
      data,
    };
  }

  async #toFile(state: SavedState): Promise<SavedState> {
    const parts = state.tensors.map(({ data }) =>
      new Uint8Array(data!.buffer, data!.byteOffset, data!.byteLength)
    );
    let file: string;
    try {
      this.#folder ??= await temporaryFolder();
      file = join(this.#folder, String(this.#nextFile++));
      await writeFile(file, parts);
    } catch (error) {
      throw unwritable(error as Error & { readonly code?: string });
    }
    return { ...state, file, tensors: state.tensors.map(({ data: _, ...rest }) => rest) };
  }

  /** Forgets the states that are left, and removes the temporary folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const resident of this.#residents) this.#release(resident);
    if (this.#folder) await rm(this.#folder, { recursive: true, force: true });
    this.#folder = undefined;
  }
}

const PREFIX = "lora-loom-iteris-";

/** A folder that names this process; those of processes that were killed go. */
async function temporaryFolder(): Promise<string> {
  for (const name of await readdir(tmpdir())) {
    const owner = Number(/^(\d+)-/.exec(name.slice(PREFIX.length))?.[1]);
    if (!name.startsWith(PREFIX) || Number.isNaN(owner) || isRunning(owner)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
  return await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

function isRunning(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch (error) {
    // Anything but "no such process", a refused permission for one, may be a process that runs.
    return (error as { readonly code?: unknown }).code !== "ESRCH";
  }
}

function unwritable({ code, message }: { readonly code?: string; readonly message: string }): IterisError {
  return new IterisError(
    code === "ENOSPC" || code === "EDQUOT" ? "disk_full" : "scratch_unusable",
    `the samples on their way cannot wait in the temporary folder ${tmpdir()}: ${message}`,
    "let TMPDIR name a folder with more room that can be written to, or use fewer samples",
    tmpdir(),
  );
}

/** A further hold of a tensor: what a stage makes is never changed afterwards, so no copy is needed. */
function shared(tensor: Tensor): Tensor {
  return reshape(tensor, tensor.shape);
}

function isResident({ tensors }: SavedState): boolean {
  return tensors.some(({ resident }) => resident);
}

function byteLength(state: SavedState): number {
  return sumOf(state.tensors, ({ byteLength }) => byteLength);
}

function bytesOf({ shape, dtype }: Tensor): number {
  return elementCount(shape) * BYTES_PER_ELEMENT[dtype];
}

function sumOf<T>(values: readonly T[], of: (value: T) => number): number {
  return values.reduce((sum, value) => sum + of(value), 0);
}

async function arraysOf(state: SavedState, file: string): Promise<HostArray[]> {
  const bytes = new Uint8Array(await readFile(file));
  let offset = 0;
  return state.tensors.map(({ arrayType, byteLength }) => {
    const array = new arrayType(bytes.buffer.slice(offset, offset + byteLength));
    offset += byteLength;
    return array;
  });
}
