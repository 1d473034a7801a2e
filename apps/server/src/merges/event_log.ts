import type { MergeProgress, MergeResource } from "./merge.ts";

/** Something that happened to a merge, with an id that a client can come back with. */
export type LoggedEvent =
  | { readonly id: string; readonly type: "merge"; readonly merge: MergeResource }
  | { readonly id: string; readonly type: "progress"; readonly progress: MergeProgress };

/** Events of one merge that are kept for clients that come back. */
const KEPT = 500;

/**
 * What happens to one merge while this server lives. Ids are `EPOCH.NUMBER`: the epoch tells the events of this log from
 * those of another life of the server, whose numbers mean nothing here.
 */
export class EventLog {
  readonly #epoch = crypto.randomUUID().slice(0, 8);
  readonly #events: LoggedEvent[] = [];
  readonly #listeners = new Set<(event: LoggedEvent) => void>();
  #count = 0;

  add(event: { type: "merge"; merge: MergeResource } | { type: "progress"; progress: MergeProgress }): void {
    const logged = { id: `${this.#epoch}.${++this.#count}`, ...event } as LoggedEvent;
    this.#events.push(logged);
    if (this.#events.length > KEPT) this.#events.shift();
    for (const listener of this.#listeners) listener(logged);
  }

  /** The id of the newest event. */
  get lastId(): string {
    return `${this.#epoch}.${this.#count}`;
  }

  get isWatched(): boolean {
    return this.#listeners.size > 0;
  }

  /** What came after the event with this id; undefined where that is no longer, or never was, known. */
  after(id: string): readonly LoggedEvent[] | undefined {
    if (id === this.lastId) return [];
    const index = this.#events.findIndex((event) => event.id === id);
    return index < 0 ? undefined : this.#events.slice(index + 1);
  }

  /** Calls `listener` with everything from now on; the result ends that. */
  listen(listener: (event: LoggedEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
