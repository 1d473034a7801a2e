import { type Node, PatternError, type Predicate } from "./pattern_node.ts";

/** Of the automaton that a pattern is run as; what is no jump leads to the next one. */
export type State =
  | { readonly kind: "character"; readonly accepts: Predicate }
  | { readonly kind: "start" | "end" | "accept" }
  | { readonly kind: "jump"; readonly targets: number[] };

const MAX_STEPS = 5_000;

/**
 * The states of a pattern, of which the first is the start and the last accepts.
 *
 * @throws {PatternError} for a pattern that repeats too much
 */
export function compilePattern(node: Node): readonly State[] {
  return new Compiler().compile(node);
}

/** Thompson's construction: each state leads to the next one, jumps lead elsewhere. */
class Compiler {
  readonly #states: State[] = [];
  #steps = 0;

  compile(node: Node): readonly State[] {
    this.#emit(node);
    this.#add({ kind: "accept" });
    return this.#states;
  }

  #emit(node: Node): void {
    // Counted apart from the states: a repeated empty group makes none.
    if (++this.#steps > MAX_STEPS) throw new PatternError("the pattern repeats too much");
    switch (node.kind) {
      case "sequence":
        node.items.forEach((item) => this.#emit(item));
        break;
      case "choice":
        this.#emitChoice(node.items);
        break;
      case "repeat":
        this.#emitRepeat(node.item, node.min, node.max);
        break;
      default:
        this.#add(node);
    }
  }

  #emitChoice(items: readonly Node[]): void {
    const entries: number[] = [];
    const exits: number[][] = [];
    this.#jump(entries);
    for (const item of items) {
      entries.push(this.#states.length);
      this.#emit(item);
      exits.push(this.#jump([]));
    }
    exits.forEach((targets) => targets.push(this.#states.length));
  }

  #emitRepeat(item: Node, min: number, max: number): void {
    for (let i = 0; i < min; i++) this.#emit(item);
    if (max === Infinity) return this.#emitStar(item);
    const skips: number[][] = [];
    for (let i = min; i < max; i++) {
      skips.push(this.#jump([this.#states.length + 1]));
      this.#emit(item);
    }
    skips.forEach((targets) => targets.push(this.#states.length));
  }

  #emitStar(item: Node): void {
    const loop = this.#states.length;
    const targets = this.#jump([loop + 1]);
    this.#emit(item);
    this.#jump([loop]);
    targets.push(this.#states.length);
  }

  #jump(targets: number[]): number[] {
    this.#add({ kind: "jump", targets });
    return targets;
  }

  #add(state: State): void {
    this.#states.push(state);
  }
}
