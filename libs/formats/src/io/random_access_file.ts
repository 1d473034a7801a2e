import fs from "node:fs";
import { promisify } from "node:util";
import { FormatError } from "../errors.ts";
import { fileError, withFileErrors } from "./system_errors.ts";

const openDescriptor = promisify(fs.open);
const statDescriptor = promisify(fs.fstat);
const syncDescriptor = promisify(fs.fsync);

/** One system call transfers at most this many bytes: Linux stops short of 2 GiB. */
const MAX_TRANSFER = 1 << 30;

/**
 * `read` opens an existing file; `create` makes a new one and fails where something exists; `update` opens an
 * existing file for writing without emptying it.
 */
export type OpenMode = "read" | "create" | "update";
const FLAGS: Record<OpenMode, string> = { read: "r", create: "wx", update: "r+" };

/**
 * A file read and written at positions. Plain descriptors rather than `FileHandle`, so that closing is synchronous and
 * works in `using` declarations.
 */
export class RandomAccessFile {
  readonly path: string;
  /** Size in bytes when the file was opened. */
  readonly size: number;
  readonly #descriptor: number;
  #transfers = 0;
  #closed = false;

  private constructor(path: string, descriptor: number, size: number) {
    this.path = path;
    this.#descriptor = descriptor;
    this.size = size;
  }

  /** @throws {FormatError} `not_found`, `not_a_file`, `permission_denied`, `target_exists`, … */
  static async open(path: string, mode: OpenMode): Promise<RandomAccessFile> {
    if (mode === "read") await refuseSpecialFile(path);
    const descriptor = await withFileErrors(
      mode === "create" ? "create" : "open",
      path,
      () => openDescriptor(path, FLAGS[mode]),
    );
    try {
      return new RandomAccessFile(path, descriptor, (await statDescriptor(descriptor)).size);
    } catch (error) {
      fs.closeSync(descriptor);
      throw fileError(error, "open", path);
    }
  }

  /** The bytes `[position, position + length)` in a buffer of their own. */
  async read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = allocate(length, this.path);
    await this.#transfer("read", async () => {
      for (let done = 0; done < length;) {
        const chunk = Math.min(length - done, MAX_TRANSFER);
        const count = await readChunk(this.#descriptor, bytes, done, chunk, position + done);
        if (count === 0) throw this.#shrunk(position + length, position + done);
        done += count;
      }
    });
    return bytes;
  }

  /** Writes all of `bytes` at `position`. */
  async write(position: number, bytes: Uint8Array): Promise<void> {
    await this.#transfer("write", async () => {
      for (let done = 0; done < bytes.length;) {
        const chunk = Math.min(bytes.length - done, MAX_TRANSFER);
        done += await writeChunk(this.#descriptor, bytes, done, chunk, position + done);
      }
    });
  }

  /** Waits until everything written is on the disk. */
  async sync(): Promise<void> {
    await this.#transfer("flush", () => syncDescriptor(this.#descriptor));
  }

  /** Closes the file, once the transfers under way are done. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#transfers === 0) fs.closeSync(this.#descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #transfer<T>(action: string, operation: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      throw new FormatError(
        "file_closed",
        `${this.path} is closed`,
        "Close a file only after its last read.",
        this.path,
      );
    }
    this.#transfers++;
    try {
      return await withFileErrors(action, this.path, operation);
    } finally {
      // The system may hand a closed descriptor's number to another file, so a close waits for its last user.
      if (--this.#transfers === 0 && this.#closed) fs.closeSync(this.#descriptor);
    }
  }

  #shrunk(expected: number, found: number): FormatError {
    return new FormatError(
      "file_changed",
      `${this.path} ends at byte ${found} where ${expected} were expected: it changed while it was read`,
      "Wait until the program that writes the file is done, then try again.",
      this.path,
    );
  }
}

/** Opening a pipe would wait for its other end for ever, so only regular files are opened. */
async function refuseSpecialFile(path: string): Promise<void> {
  const status = await withFileErrors("open", path, () => fs.promises.stat(path));
  if (status.isFile()) return;
  const kind = status.isDirectory() ? "a folder" : "a pipe, socket or device";
  throw new FormatError(
    "not_a_file",
    `${path} is ${kind}, a file was expected`,
    "Name a regular file.",
    path,
  );
}

/** A zeroed buffer of `length` bytes, or an error that says why there is none. */
export function allocate(length: number, where: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch (error) {
    throw new FormatError(
      "out_of_memory",
      `a buffer of ${length} bytes cannot be allocated`,
      "Read the tensor in ranges of rows, or use a machine with more memory.",
      where,
      { cause: error },
    );
  }
}

function readChunk(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, bytes, offset, length, position, (error, count) => error ? reject(error) : resolve(count));
  });
}

function writeChunk(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.write(fd, bytes, offset, length, position, (error, count) => error ? reject(error) : resolve(count));
  });
}
