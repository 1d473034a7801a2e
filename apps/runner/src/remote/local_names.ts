import { MergeError, type ProgressEvent } from "@lora-loom/merge";

interface Named {
  readonly message: string;
  readonly where: string;
}

/** Says a server's texts with the recipe's paths: the server knows what was uploaded by ids that nobody here has seen. */
export class LocalNames {
  readonly #paths: readonly (readonly [theirs: string, ours: string])[];

  /** @param paths what the server calls something, and the path that the recipe has for it */
  constructor(paths: Iterable<readonly [theirs: string, ours: string]>) {
    // The longest first: a file's name begins with its folder's.
    this.#paths = [...paths].sort(([one], [other]) => other.length - one.length);
  }

  text(text: string): string {
    return this.#paths.reduce((said, [theirs, ours]) => said.replaceAll(theirs, () => ours), text);
  }

  warning<T extends Named>(warning: T): T {
    return { ...warning, message: this.text(warning.message), where: this.text(warning.where) };
  }

  event(event: ProgressEvent): ProgressEvent {
    if (event.type === "note") return this.warning(event);
    if (event.type !== "start") return event;
    return { ...event, warnings: event.warnings.map((warning) => this.warning(warning)) };
  }

  /** Anything that was thrown; only what the server described is changed. */
  error(thrown: unknown): unknown {
    if (!(thrown instanceof MergeError)) return thrown;
    const { code, message, fix, where, blame } = thrown;
    return new MergeError(code, this.text(message), this.text(fix), this.text(where), blame);
  }
}
