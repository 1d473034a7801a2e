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
    return this.#known.get(path) ?? this.#split(path.split("_"))?.join(".");
  }

  /**
   * Words that the parts can be put together to. The longest word at a place is tried first, and given up only where
   * nothing fits behind it.
   */
  #split(parts: readonly string[]): string[] | undefined {
    const behind: (string[] | undefined)[] = [];
    behind[parts.length] = [];
    for (let position = parts.length - 1; position >= 0; position--) {
      behind[position] = this.#longestWord(parts, position, behind);
    }
    return behind[0];
  }

  /** The longest word at a place with words for all that is behind it, and those. */
  #longestWord(
    parts: readonly string[],
    position: number,
    behind: readonly (string[] | undefined)[],
  ): string[] | undefined {
    for (let length = Math.min(MOST_PARTS, parts.length - position); length >= 1; length--) {
      const rest = behind[position + length];
      const word = parts.slice(position, position + length).join("_");
      if (rest && this.#isWord(word)) return [word, ...rest];
    }
    return undefined;
  }

  #isWord(word: string): boolean {
    return COMPOUND_WORDS.has(word) || SIMPLE_WORDS.has(word) || /^\d+$/.test(word) ||
      (this.#isHunyuan && HUNYUAN_WORDS.has(word));
  }
}
