import type { BaseModel } from "../../base/base_model.ts";
import { FormatError } from "../../errors.ts";
import { GIVE_BASE } from "./give_base.ts";

/** Numbers of attention heads. */
export interface Heads {
  readonly queries: number;
  readonly keys: number;
}

/**
 * The row of Hugging Face's Q or K that llama.cpp has at `row`. In each head of 2h rows, Hugging Face rotates row i with
 * row h + i; llama.cpp has the two side by side, at 2i and 2i + 1.
 *
 * @param rows of the projection, a multiple of twice the heads
 */
export function interleavedRow(row: number, rows: number, heads: number): number {
  const perHead = rows / heads;
  const head = Math.floor(row / perHead);
  const inside = row % perHead;
  return head * perHead + (inside % 2) * (perHead / 2) + Math.floor(inside / 2);
}

/** The inverse of {@linkcode interleavedRow}: where llama.cpp has Hugging Face's row. */
export function splitHalfRow(row: number, rows: number, heads: number): number {
  const perHead = rows / heads;
  const head = Math.floor(row / perHead);
  const inside = row % perHead;
  const half = perHead / 2;
  return head * perHead + (inside < half ? 2 * inside : 2 * (inside - half) + 1);
}

/** How many heads a module's rows belong to, where the module is a Q or K projection. */
export function headsOf(part: string, heads: Heads): number | undefined {
  if (part === "attn_q") return heads.queries;
  return part === "attn_k" ? heads.keys : undefined;
}

/** @throws {FormatError} `heads_unknown` */
export function headsOfBase(base: BaseModel | undefined, where: string): Heads {
  if (base?.headCount !== undefined && base.keyValueHeadCount !== undefined) {
    return { queries: base.headCount, keys: base.keyValueHeadCount };
  }
  throw new FormatError(
    "heads_unknown",
    "llama.cpp reorders the rows of Q and K by attention heads, and how many there are is not known",
    GIVE_BASE,
    where,
  );
}

/** @throws {FormatError} `shape_mismatch` where the rows cannot be those of so many heads */
export function checkHeads(rows: number, heads: number, where: string): void {
  if (rows % (2 * heads) === 0) return;
  throw new FormatError(
    "shape_mismatch",
    `${rows} rows cannot be split into pairs of ${heads} heads`,
    "Check that --base names the adapter's own base model.",
    where,
  );
}
