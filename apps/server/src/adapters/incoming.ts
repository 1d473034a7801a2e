import { createHash, type Hash, randomUUID } from "node:crypto";
import { join } from "node:path";
import { removeIfThere } from "../data/durable.ts";
import { ServerError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { HeaderGuard } from "./header_guard.ts";
import type { FileSink, UploadSink } from "./sink.ts";
import { readUploadPath, shown, type UploadPath } from "./upload_paths.ts";

/** A file that arrived whole. */
export interface ReceivedFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

type IncomingLimits = Pick<Limits, "headerBytes" | "configBytes" | "filesPerUpload">;

/** The files of one upload in a folder of their own, until they are an adapter or are thrown away. */
export class Incoming implements UploadSink {
  readonly path: string;
  readonly #files = new Map<string, ReceivedFile>();
  readonly #open = new Set<Deno.FsFile>();
  /** Of files that have begun, arrived or not. */
  readonly #names = new Set<string>();
  #folder: string | undefined;
  #pickle: string | undefined;
  #left: number;
  #count = 0;

  private constructor(
    parent: string,
    private readonly limits: IncomingLimits,
    private readonly budget: number,
  ) {
    this.path = join(parent, randomUUID());
    this.#left = budget;
  }

  /**
   * @param parent the folder of all uploads
   * @param budget most bytes that this upload may have
   */
  static async open(parent: string, limits: IncomingLimits, budget: number): Promise<Incoming> {
    const incoming = new Incoming(parent, limits, budget);
    await Deno.mkdir(incoming.path, { mode: 0o700 });
    return incoming;
  }

  /** @throws {ServerError} `invalid_name`, `too_many_files`, `several_adapters`, `duplicate_name` */
  async begin(path: string): Promise<FileSink | undefined> {
    const upload = readUploadPath(path);
    if (++this.#count > this.limits.filesPerUpload) throw this.#tooManyFiles();
    if (upload.isPickle) this.#pickle ??= upload.name;
    if (!upload.isKept) return undefined;
    this.#checkPlace(upload);
    this.#names.add(upload.name);
    const target = join(this.path, upload.name);
    const file = await Deno.open(target, { write: true, createNew: true, mode: 0o600 });
    this.#open.add(file);
    return new Writing(file, upload, this.limits, (bytes) => this.#spend(bytes), (received) => {
      this.#open.delete(file);
      this.#files.set(received.name, received);
    });
  }

  /** The folder that the files came in, if they came in one. */
  get folder(): string {
    return this.#folder ?? "";
  }

  /**
   * The files, sorted by name, all of them whole.
   *
   * @throws {ServerError} `empty_upload`, `pickle_refused`
   */
  files(): readonly ReceivedFile[] {
    const files = [...this.#files.values()].sort((x, y) => x.name < y.name ? -1 : 1);
    if (files.some(({ name }) => readUploadPath(name).isWeights)) return files;
    if (this.#pickle !== undefined) {
      throw new ServerError(
        422,
        "pickle_refused",
        `${this.#pickle} is a pickle, which can run programs when it is opened; safetensors was expected`,
        "save the adapter with safe_serialization=True, or convert it on a machine that you trust",
        this.#pickle,
      );
    }
    throw new ServerError(
      422,
      "empty_upload",
      "the upload holds no adapter weights",
      "send adapter_config.json and adapter_model.safetensors, a zip of them, or a single adapter file",
    );
  }

  /** Removes everything that is still here. */
  async discard(): Promise<void> {
    for (const file of this.#open) file.close();
    this.#open.clear();
    await removeIfThere(this.path);
  }

  #spend(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw uploadTooLarge(this.budget);
  }

  #checkPlace({ folder, name }: UploadPath): void {
    this.#folder ??= folder;
    if (folder !== this.#folder) {
      throw new ServerError(
        422,
        "several_adapters",
        `the upload holds files of several folders (${shown(this.#folder || ".")} and ${
          shown(folder || ".")
        }), one adapter was expected`,
        "send each adapter by itself",
        shown(folder),
      );
    }
    if (this.#names.has(name)) {
      const message = `the upload holds ${shown(name)} twice`;
      throw new ServerError(422, "duplicate_name", message, "send each file once", shown(name));
    }
  }

  #tooManyFiles(): ServerError {
    return new ServerError(
      413,
      "too_many_files",
      `the upload holds more than ${this.limits.filesPerUpload} files`,
      "send the adapter's own files only; the server's limit is --limit filesPerUpload=N",
    );
  }
}

/** The refusal of an upload by its size. */
export function uploadTooLarge(limit: number): ServerError {
  return new ServerError(
    413,
    "upload_too_large",
    `the upload is larger than the ${limit} bytes that are taken`,
    "delete what is no longer needed, or raise the server's limits (--limit uploadBytes=N, --limit storeBytes=N)",
  );
}

/** One file on its way to the disk. */
class Writing implements FileSink {
  readonly #hash: Hash = createHash("sha256");
  readonly #guard: HeaderGuard | undefined;
  readonly #isConfig: boolean;
  #bytes = 0;

  constructor(
    private readonly file: Deno.FsFile,
    private readonly upload: UploadPath,
    private readonly limits: IncomingLimits,
    private readonly spend: (bytes: number) => void,
    private readonly done: (file: ReceivedFile) => void,
  ) {
    this.#isConfig = !upload.isWeights;
    const isSafetensors = /\.safetensors$/i.test(upload.name);
    this.#guard = isSafetensors ? new HeaderGuard(upload.name, limits.headerBytes) : undefined;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.spend(chunk.length);
    this.#bytes += chunk.length;
    if (this.#isConfig && this.#bytes > this.limits.configBytes) {
      throw uploadTooLarge(this.limits.configBytes);
    }
    this.#guard?.check(chunk);
    this.#hash.update(chunk);
    for (let written = 0; written < chunk.length;) written += await this.file.write(chunk.subarray(written));
  }

  async end(): Promise<void> {
    await this.file.sync();
    this.file.close();
    this.done({ name: this.upload.name, bytes: this.#bytes, sha256: this.#hash.digest("hex") });
  }
}
