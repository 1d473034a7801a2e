import { COMPOUND_WORDS, HUNYUAN_WORDS, SIMPLE_WORDS } from "./words.ts";

/** No known name of a submodule has more parts between underscores. */
const MOST_PARTS = 5;

/** Turns paths that were joined by underscores back into paths with dots. */
export class PathDecoder {
  readonly #isHunyuan: boolean;
  readonly #known: ReadonlyMap<string, string>;

  /**
   * @param paths all joined paths of a file: some words are told apart by what else there is
   * @param known dotted paths that are certain, such as those of the base model
   */
  constructor(paths: Iterable<string>, known: Iterable<string> = []) {
    this.#isHunyuan = [...paths].some((path) => /_(img|txt)_(mlp_fc[12]|mod_linear)$/.test(path));
    this.#known = new Map([...known].map((name) => [name.replaceAll(".", "_"), name]));
  }

  /** The dotted path; undefined where a part is not known. Joining the result by underscores gives `path` again. */
  decode(path: string): string | undefined {
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const parts = path.split("_");
    const words: string[] = [];
    for (let position = 0; position < parts.length;) {
      const length = this.#longestWord(parts, position);
      if (length === 0) return undefined;
      words.push(parts.slice(position, position + length).join("_"));
      position += length;
    }
    return words.join(".");
  }

  /** How many parts the longest known word at a position has. */
  #longestWord(parts: readonly string[], position: number): number {
    for (let length = Math.min(MOST_PARTS, parts.length - position); length > 1; length--) {
      const word = parts.slice(position, position + length).join("_");
      if (COMPOUND_WORDS.has(word) || (this.#isHunyuan && HUNYUAN_WORDS.has(word))) return length;
    }
    return SIMPLE_WORDS.has(parts[position]!) || /^\d+$/.test(parts[position]!) ? 1 : 0;
  }
}
