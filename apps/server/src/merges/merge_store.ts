import type { DatabaseSync } from "node:sqlite";
import { transaction } from "../data/database.ts";
import { type MergeFailure, notFound } from "../errors.ts";
import type { MergeRequest, MergeResult, MergeState } from "./merge.ts";

/** A merge as it is stored. */
export interface StoredMerge {
  readonly sequence: number;
  readonly id: string;
  readonly name: string;
  readonly request: MergeRequest;
  readonly state: MergeState;
  readonly created: string;
  readonly started: string | null;
  readonly finished: string | null;
  readonly interruptions: number;
  readonly result: MergeResult | null;
  readonly error: MergeFailure | null;
}

type Row = { readonly [key in keyof StoredMerge]: string | number | null };

function fromRow(row: Row): StoredMerge {
  const parse = (text: string | number | null) =>
    text === null ? null : JSON.parse(text as string) as unknown;
  return {
    ...row as unknown as StoredMerge,
    request: parse(row.request) as MergeRequest,
    result: parse(row.result) as MergeResult | null,
    error: parse(row.error) as MergeFailure | null,
  };
}

/** The merges and their states. Every change of state is one statement that names the state it leaves. */
export class MergeStore {
  constructor(private readonly database: DatabaseSync) {}

  /** A new merge at the end of the queue. */
  add(id: string, name: string, request: MergeRequest): void {
    const inputs = new Set(
      request.adapters.flatMap((one) => one.calibration ? [one.id, one.calibration] : [one.id]),
    );
    transaction(this.database, () => {
      this.database.prepare(
        "INSERT INTO merges (id, name, request, state, created) VALUES (?, ?, ?, 'queued', ?)",
      )
        .run(id, name, JSON.stringify(request), new Date().toISOString());
      for (const input of inputs) {
        this.database.prepare("INSERT INTO inputs (merge, input) VALUES (?, ?)").run(id, input);
      }
    });
  }

  find(id: string): StoredMerge | undefined {
    const row = this.database.prepare("SELECT * FROM merges WHERE id = ?").get(id);
    return row && fromRow(row as Row);
  }

  /** @throws {ServerError} `not_found` */
  get(id: string): StoredMerge {
    const merge = this.find(id);
    if (!merge) throw notFound("merge", id, "/api/merges");
    return merge;
  }

  /** The newest first, at most `limit`, older than `before` where given. */
  list(limit: number, before = Number.MAX_SAFE_INTEGER): StoredMerge[] {
    const rows = this.database.prepare(
      "SELECT * FROM merges WHERE sequence < ? ORDER BY sequence DESC LIMIT ?",
    );
    return (rows.all(before, limit) as Row[]).map(fromRow);
  }

  inState(state: MergeState): StoredMerge[] {
    const rows = this.database.prepare("SELECT * FROM merges WHERE state = ? ORDER BY sequence").all(state);
    return (rows as Row[]).map(fromRow);
  }

  count(state?: MergeState): number {
    const row = state === undefined
      ? this.database.prepare("SELECT count(*) AS count FROM merges").get()
      : this.database.prepare("SELECT count(*) AS count FROM merges WHERE state = ?").get(state);
    return (row as { count: number }).count;
  }

  /** How many merges wait before this one. */
  countBefore(sequence: number): number {
    const row = this.database.prepare(
      "SELECT count(*) AS count FROM merges WHERE state = 'queued' AND sequence < ?",
    )
      .get(sequence);
    return (row as { count: number }).count;
  }

  /** Takes the first waiting merge out of the queue. */
  takeNext(): StoredMerge | undefined {
    const row = this.database.prepare(
      `UPDATE merges SET state = 'running', started = ? WHERE state = 'queued'
       AND sequence = (SELECT min(sequence) FROM merges WHERE state = 'queued') RETURNING *`,
    ).get(new Date().toISOString());
    return row && fromRow(row as Row);
  }

  /** Back into the queue, in its old place. */
  requeue(id: string, interruptions: number): void {
    this.database.prepare(
      "UPDATE merges SET state = 'queued', started = NULL, interruptions = ? WHERE id = ? AND state = 'running'",
    ).run(interruptions, id);
  }

  finish(id: string, result: MergeResult): void {
    this.#end(id, "done", "running", JSON.stringify(result), null);
  }

  fail(id: string, error: MergeFailure): void {
    this.#end(id, "failed", "running", null, JSON.stringify(error));
  }

  /** Cancels a merge that waits or runs; says whether there was one. */
  cancel(id: string, from: "queued" | "running"): boolean {
    return this.#end(id, "cancelled", from, null, null);
  }

  remove(id: string): void {
    this.database.prepare("DELETE FROM merges WHERE id = ? AND state NOT IN ('queued', 'running')").run(id);
  }

  #end(id: string, to: MergeState, from: MergeState, result: string | null, error: string | null): boolean {
    const { changes } = this.database.prepare(
      "UPDATE merges SET state = ?, finished = ?, result = ?, error = ? WHERE id = ? AND state = ?",
    ).run(to, new Date().toISOString(), result, error, id, from);
    return Number(changes) === 1;
  }
}
