import { createHash, randomUUID } from "node:crypto";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { removeIfThere, renameDurably } from "../data/durable.ts";
import { type DataFolder, sweep } from "../data/folder.ts";
import { refuseIfInUse } from "../data/inputs.ts";
import { notFound, ServerError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { InspectionWork } from "../work/inspection.ts";

const ID_DIGITS = 24;

/** Calibration text that the server keeps: JSON Lines with a prompt or a text a row. */
export interface Calibration {
  /** From its content. */
  readonly id: string;
  readonly name: string;
  readonly created: string;
  readonly bytes: number;
  readonly rows: number;
}

/** The calibration texts that were uploaded. */
export class CalibrationStore {
  constructor(
    private readonly database: DatabaseSync,
    private readonly folder: DataFolder,
    private readonly limits: Limits,
    private readonly inspector: Pick<InspectionWork, "countRows">,
  ) {}

  /** Removes what a killed server left behind. */
  async recover(): Promise<void> {
    await sweep(this.folder.calibrations, new Set(this.list().map(({ id }) => `${id}.jsonl`)));
  }

  /** All of them, the newest first. */
  list(): Calibration[] {
    return this.database.prepare(
      "SELECT id, name, created, bytes, rows FROM calibrations ORDER BY sequence DESC",
    )
      .all() as unknown as Calibration[];
  }

  /** @throws {ServerError} `not_found` */
  get(id: string): Calibration {
    const row = this.database.prepare("SELECT id, name, created, bytes, rows FROM calibrations WHERE id = ?")
      .get(id);
    if (!row) throw notFound("calibration text", id, "/api/calibrations");
    return row as unknown as Calibration;
  }

  path(id: string): string {
    return join(this.folder.calibrations, `${this.get(id).id}.jsonl`);
  }

  /** @throws {MergeError} `not_text`, `invalid_row`; {ServerError} `too_many_calibrations` */
  async add(
    name: string,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<{ calibration: Calibration; isNew: boolean }> {
    const rows = await this.inspector.countRows(bytes);
    const id = createHash("sha256").update(bytes).digest("hex").slice(0, ID_DIGITS);
    const known = this.list().find((one) => one.id === id);
    if (known) return { calibration: known, isNew: false };
    if (this.list().length >= this.limits.calibrations) {
      throw new ServerError(
        507,
        "too_many_calibrations",
        `the server keeps ${this.limits.calibrations} calibration texts already`,
        "delete one with DELETE /api/calibrations/{id}",
      );
    }
    const calibration: Calibration = {
      id,
      name,
      created: new Date().toISOString(),
      bytes: bytes.length,
      rows,
    };
    const staged = join(this.folder.incoming, randomUUID());
    await Deno.writeFile(staged, bytes, { createNew: true, mode: 0o600 });
    await renameDurably(staged, join(this.folder.calibrations, `${id}.jsonl`));
    this.database.prepare(
      "INSERT INTO calibrations (id, name, created, bytes, rows) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    ).run(id, name, calibration.created, calibration.bytes, rows);
    return { calibration, isNew: true };
  }

  /** @throws {ServerError} `not_found`, `calibration_in_use` */
  async remove(id: string): Promise<void> {
    const path = this.path(id);
    refuseIfInUse(this.database, id, "calibration");
    this.database.prepare("DELETE FROM calibrations WHERE id = ?").run(id);
    await removeIfThere(path);
  }
}
