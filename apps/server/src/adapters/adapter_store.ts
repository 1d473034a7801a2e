import { createHash } from "node:crypto";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import type { DataFolder } from "../data/folder.ts";
import { sweep } from "../data/folder.ts";
import { refuseIfInUse } from "../data/inputs.ts";
import { exists, removeIfThere, renameDurably } from "../data/durable.ts";
import { describeFailure, notFound, type PublicError, ServerError, storeFull } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { AdapterFacts, AdapterPlace, InspectionWork, ReadingOptions } from "../work/inspection.ts";
import type { AdapterDetail, AdapterResource, PublicInspection } from "./adapter.ts";
import { Incoming, type ReceivedFile } from "./incoming.ts";
import type { UploadSink } from "./sink.ts";

/** Hexadecimal digits of an id. */
const ID_DIGITS = 24;

interface Row {
  readonly id: string;
  readonly name: string;
  readonly created: string;
  readonly bytes: number;
  readonly files: string;
  readonly facts: string;
  readonly options: string;
  readonly inspection: string | null;
  readonly problem: string | null;
}

/** What the store works with. */
export interface AdapterStoreParts {
  readonly database: DatabaseSync;
  readonly folder: DataFolder;
  readonly limits: Limits;
  readonly inspector: InspectionWork;
  /** Bytes that everything kept takes now. */
  readonly used: () => number;
  readonly hide: (text: string) => string;
}

/** What came of an upload. */
export interface UploadOutcome {
  readonly adapter: AdapterResource;
  /** False where the same files were here before. */
  readonly isNew: boolean;
}

/** Equal files under equal names, read alike, make an equal id, so that an upload can be repeated without harm. */
function contentId(files: readonly ReceivedFile[], options: ReadingOptions): string {
  const text = files.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join("");
  const reading = Object.keys(options).length > 0 ? JSON.stringify(options) : "";
  return createHash("sha256").update(text + reading).digest("hex").slice(0, ID_DIGITS);
}

/** The adapters that were uploaded: files in a folder of their own each, what they are in the database. */
export class AdapterStore {
  readonly #parts: AdapterStoreParts;
  /** Uploads are put in their place one after the other, so that equal ones do not meet. */
  #placing: Promise<unknown> = Promise.resolve();
  #inspecting: Promise<void> = Promise.resolve();
  #uploads = 0;

  constructor(parts: AdapterStoreParts) {
    this.#parts = parts;
  }

  /** Removes what a killed server left behind and goes on looking at what it had not looked at. */
  async recover(): Promise<void> {
    const { database, folder } = this.#parts;
    await sweep(folder.incoming, new Set());
    const rows = database.prepare("SELECT * FROM adapters").all() as unknown as Row[];
    await sweep(folder.adapters, new Set(rows.map(({ id }) => id)));
    for (const row of rows) if (row.inspection === null && row.problem === null) this.#inspectLater(row);
  }

  /** All adapters, the newest first. */
  list(): AdapterResource[] {
    const rows = this.#parts.database.prepare("SELECT * FROM adapters ORDER BY sequence DESC").all();
    return (rows as unknown as Row[]).map((row) => this.#resource(row));
  }

  /** @throws {ServerError} `not_found` */
  get(id: string): AdapterDetail {
    const row = this.#row(id);
    return {
      ...this.#resource(row),
      inspection: row.inspection === null ? null : JSON.parse(row.inspection) as PublicInspection,
      problem: row.problem === null ? null : JSON.parse(row.problem) as PublicError,
    };
  }

  /** Where a merge finds the adapter, its only file or its folder, and how it is to be read. */
  place(id: string): AdapterPlace {
    const { id: folder, files, options } = this.#row(id);
    const names = (JSON.parse(files) as ReceivedFile[]).map(({ name }) => name);
    const path = join(this.#parts.folder.adapters, folder, names.length === 1 ? names[0]! : "");
    return { path, ...JSON.parse(options) as ReadingOptions };
  }

  /**
   * Takes an upload.
   *
   * @param read brings the files to the sink, and says how the adapter shall be called, if anything does
   * @param options how the adapter is to be read, now and in every merge
   * @throws {ServerError} when the upload is refused; {FormatError} when it is no adapter. Nothing of it is left then.
   */
  async receive(
    read: (sink: UploadSink) => Promise<string | undefined>,
    options: ReadingOptions = {},
  ): Promise<UploadOutcome> {
    const { folder, limits } = this.#parts;
    if (this.#uploads >= limits.uploads) throw tooBusy(limits.uploads);
    this.#uploads++;
    try {
      const incoming = await Incoming.open(folder.incoming, limits, this.#budget());
      try {
        const name = await read(incoming);
        return await this.#keep(incoming, name, options);
      } finally {
        await incoming.discard();
      }
    } finally {
      this.#uploads--;
    }
  }

  /** @throws {ServerError} `not_found`, `adapter_in_use` */
  async remove(id: string): Promise<void> {
    const { database, folder } = this.#parts;
    this.#row(id);
    refuseIfInUse(database, id, "adapter");
    // First from the list: a kill between the two leaves a folder that the next start removes.
    database.prepare("DELETE FROM adapters WHERE id = ?").run(id);
    await removeIfThere(join(folder.adapters, id));
  }

  /** Ends when everything that was uploaded so far has been looked at. */
  async inspected(): Promise<void> {
    await this.#inspecting;
  }

  #budget(): number {
    const { limits, used } = this.#parts;
    const free = limits.storeBytes - used();
    if (free > 0) return Math.min(limits.uploadBytes, free);
    throw storeFull(limits.storeBytes);
  }

  async #keep(
    incoming: Incoming,
    name: string | undefined,
    options: ReadingOptions,
  ): Promise<UploadOutcome> {
    const { database, folder, limits } = this.#parts;
    const files = incoming.files();
    const id = contentId(files, options);
    const single = files.length === 1 ? files[0]!.name : undefined;
    const facts = await this.#describe(
      { path: join(incoming.path, single ?? ""), ...options },
      incoming.path,
    );
    return await this.#inTurn(async () => {
      const known = database.prepare("SELECT * FROM adapters WHERE id = ?").get(id) as unknown as
        | Row
        | undefined;
      if (known) return { adapter: this.#resource(known), isNew: false };
      const { count } = database.prepare("SELECT count(*) AS count FROM adapters").get() as { count: number };
      if (count >= limits.adapters) throw tooManyAdapters(limits.adapters);
      const target = join(folder.adapters, id);
      // A folder without its row: its removal was cut short.
      if (await exists(target)) await removeIfThere(target);
      await renameDurably(incoming.path, target);
      const row: Row = {
        id,
        name: (name || incoming.folder.split("/").at(-1) || single?.replace(/\.\w+$/, "") || "adapter").slice(
          0,
          120,
        ),
        created: new Date().toISOString(),
        bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
        files: JSON.stringify(files),
        facts: JSON.stringify(facts),
        options: JSON.stringify(options),
        inspection: null,
        problem: null,
      };
      database.prepare(
        "INSERT INTO adapters (id, name, created, bytes, files, facts, options) VALUES (?, ?, ?, ?, ?, ?, ?)",
      )
        .run(row.id, row.name, row.created, row.bytes, row.files, row.facts, row.options);
      this.#inspectLater(row);
      return { adapter: this.#resource(row), isNew: true };
    });
  }

  async #describe(place: AdapterPlace, incoming: string) {
    try {
      return await this.#parts.inspector.describe(place);
    } catch (error) {
      const hide = (text: string) =>
        this.#parts.hide(text.replaceAll(`${incoming}/`, "").replaceAll(incoming, "the upload"));
      const { status, error: { code, message, fix, where } } = describeFailure(error, hide);
      throw new ServerError(status, code, message, fix, where);
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#placing.then(work, work);
    this.#placing = turn.catch(() => {});
    return turn;
  }

  #inspectLater({ id }: Row): void {
    this.#inspecting = this.#inspecting.then(() => this.#inspect(id)).catch((error) =>
      console.error(`inspecting ${id}: ${error}`)
    );
  }

  async #inspect(id: string): Promise<void> {
    const { database, inspector, hide } = this.#parts;
    const isKept = () => database.isOpen && database.prepare("SELECT 1 FROM adapters WHERE id = ?").get(id);
    if (!isKept()) return;
    try {
      const { path: _path, files: _files, name: _name, ...rest } = await inspector.inspect(this.place(id));
      const shown = {
        ...rest,
        problems: rest.problems.map(({ code, message, where }) => ({
          code,
          message: hide(message),
          where: hide(where),
        })),
      };
      if (!isKept()) return;
      database.prepare("UPDATE adapters SET inspection = ? WHERE id = ?").run(JSON.stringify(shown), id);
    } catch (error) {
      const failure = describeFailure(error, hide).error;
      // A crash is no property of the adapter: the next start tries again.
      if (!isKept() || failure.code === "worker_crashed") return;
      database.prepare("UPDATE adapters SET problem = ? WHERE id = ?").run(JSON.stringify(failure), id);
    }
  }

  #row(id: string): Row {
    const row = this.#parts.database.prepare("SELECT * FROM adapters WHERE id = ?").get(id);
    if (!row) throw notFound("adapter", id, "/api/adapters");
    return row as unknown as Row;
  }

  #resource(row: Row): AdapterResource {
    const { id, name, created, bytes } = row;
    const facts = JSON.parse(row.facts) as AdapterFacts;
    const { hide } = this.#parts;
    const warnings = facts.warnings.map(({ code, message, where }) => ({
      code,
      message: hide(message),
      where: hide(where),
    }));
    const files = JSON.parse(row.files) as ReceivedFile[];
    const options = JSON.parse(row.options) as ReadingOptions;
    return { id, name, created, bytes, files, ...facts, warnings, ...options };
  }
}

function tooBusy(limit: number): ServerError {
  return new ServerError(
    503,
    "too_many_uploads",
    `${limit} uploads are on their way already`,
    "wait until one of them is done, and send it again",
  );
}

function tooManyAdapters(limit: number): ServerError {
  return new ServerError(
    507,
    "too_many_adapters",
    `the server keeps ${limit} adapters already, and takes no more`,
    "delete one with DELETE /api/adapters/{id}",
  );
}
