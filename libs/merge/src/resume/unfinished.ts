import { rmdir, statfs } from "node:fs/promises";
import { CheckpointFolder } from "../refine/checkpoint.ts";
import { describeError, MergeError } from "../errors.ts";
import { type Found, type Identity, JournalFile } from "./journal_file.ts";
import type { Packed } from "./packed.ts";
import { type StepJournal, type StepStore, StoredSteps } from "./step_journal.ts";

/** Where an unfinished merge keeps what it did: beside its output. */
export function unfinishedPath(output: string): string {
  return `${output}.unfinished`;
}

/** Something that a user should hear while the merge goes on. */
export interface Note {
  readonly code: string;
  readonly message: string;
  readonly where: string;
}

/**
 * What a merge keeps of its finished steps until its result is in place. That this fails is never a reason for the merge to fail: then it
 * keeps nothing more, and says so.
 */
export class Unfinished implements StepStore {
  readonly path: string;
  #journal: JournalFile | undefined;
  /** Steps that an interrupted run did. */
  #taken = 0;

  /**
   * @param output the folder that will hold the result
   * @param resultBytes what the result will take there: so much is left free
   * @param note hears what the user should know
   */
  constructor(
    output: string,
    private readonly resultBytes: number,
    private readonly note: (note: Note) => void,
  ) {
    this.path = unfinishedPath(output);
  }

  /** Steps of an interrupted run that this one goes on from. */
  get taken(): number {
    return this.#taken;
  }

  /** Looks for what an interrupted run of the same work left. */
  async open(identity: Identity): Promise<StepJournal> {
    try {
      await this.#open(identity);
    } catch (error) {
      await this.#giveUp(error);
    }
    return new StoredSteps(this);
  }

  has(step: string): boolean {
    return this.#journal?.has(step) ?? false;
  }

  async read(step: string): Promise<Packed> {
    try {
      return await this.#journal!.read(step);
    } catch (error) {
      const message = `what an interrupted run kept of ${step} cannot be read: ${
        describeError(error).message
      }`;
      throw new MergeError(
        "journal_unreadable",
        message,
        "start from the beginning with --fresh",
        this.path,
        "work",
      );
    }
  }

  async append(step: string, record: Packed): Promise<void> {
    if (!this.#journal) return;
    try {
      await this.#journal.append(step, record);
      await this.#leaveRoom();
    } catch (error) {
      await this.#giveUp(error);
    }
  }

  /** Forgets what interrupted runs left, of whatever work: this one starts from the beginning. */
  async forget(): Promise<void> {
    try {
      const { journal } = await JournalFile.open(this.path, {});
      await journal.remove();
      await this.#removeRest();
    } catch (error) {
      const message = `what an interrupted run left cannot be removed: ${describeError(error).message}`;
      throw new MergeError("journal_unreadable", message, `remove ${this.path}`, this.path, "work");
    }
  }

  /** Removes everything: the result is in its place. */
  async remove(): Promise<void> {
    await this.#journal?.remove();
    await this.#removeRest();
  }

  /** Leaves the finished steps to the next run where that can go on from them, and says so; returns the error to throw. */
  async leave(error: unknown): Promise<unknown> {
    const { code, where, blame } = describeError(error);
    const steps = this.#journal?.steps ?? [];
    // The same request would fail again; one that got further before fails for a reason outside of it.
    if (blame === "request" && this.#taken === 0) {
      await this.#journal?.discard();
      await this.#removeFolder();
      return error;
    }
    await this.#journal?.close();
    // A refinement says for itself what it keeps.
    if (steps.length === 0 || where === this.path) return error;
    const kept = `what was finished (${stepsUpTo(steps)}) is kept in ${this.path}`;
    const again = "run it again: it goes on from there";
    if (code !== "cancelled") {
      this.note({ code: "steps_kept", message: `${kept}; ${again}`, where: this.path });
      return error;
    }
    return new MergeError(
      code,
      `the merge was cancelled; ${kept}`,
      `${again} (add --fresh to start from the beginning)`,
      this.path,
      blame,
    );
  }

  async #open(identity: Identity): Promise<void> {
    const { journal, found } = await JournalFile.open(this.path, identity);
    this.#journal = journal;
    this.#taken = journal.steps.length;
    this.#tell(found);
  }

  async #leaveRoom(): Promise<void> {
    const { bavail, bsize } = await statfs(this.path);
    if (bavail * bsize >= this.resultBytes) return;
    throw new MergeError(
      "disk_full",
      "the disk has room for the result alone",
      "free some space",
      this.path,
      "work",
    );
  }

  async #removeRest(): Promise<void> {
    await new CheckpointFolder(this.path, "").remove();
    await this.#removeFolder();
  }

  /** Unless another process keeps something there: it may work on the same output. */
  async #removeFolder(): Promise<void> {
    await rmdir(this.path).catch(() => {});
  }

  #tell({ isCut, others }: Found): void {
    const { path } = this;
    const steps = this.#journal!.steps;
    if (steps.length > 0) {
      const cut = isCut ? "; the one after was cut off, and is done again" : "";
      const message = `an interrupted run of this merge finished ${
        stepsUpTo(steps)
      }; this one goes on from there${cut}`;
      this.note({ code: "resumed", message, where: path });
      return;
    }
    for (const differences of others) {
      const why = differences === "damaged" ? "it is damaged" : `${listed(differences)} differ`;
      const message = `what an interrupted run left is not used: ${why}; this one starts from the beginning`;
      this.note({ code: "journal_ignored", message, where: path });
    }
  }

  /** A journal in the way of the result would be worse than none: what it takes is given back. */
  async #giveUp(error: unknown): Promise<void> {
    const journal = this.#journal;
    this.#journal = undefined;
    await journal?.discard().catch(() => {});
    await this.#removeFolder();
    const message = `finished steps cannot be kept (${
      describeError(error).message
    }): if this merge is interrupted, it must start from the beginning`;
    this.note({ code: "journal_not_kept", message, where: this.path });
  }
}

function stepsUpTo(steps: readonly string[]): string {
  return steps.length === 1 ? steps[0]! : `${steps.length} steps, the last one ${steps.at(-1)}`;
}

/** At most a few names: another device or base model differs in many. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 4);
  const rest = names.length - shown.length;
  return shown.join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}
