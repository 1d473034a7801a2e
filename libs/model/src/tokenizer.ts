import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { ModelError } from "./errors.ts";
import { readJsonFile } from "./json_file.ts";

/** Options of {@linkcode Tokenizer.decode}. */
export interface DecodeOptions {
  /** Leaves out tokens such as `</s>`. Default true. */
  readonly skipSpecial?: boolean;
}

/** Text to token ids and back, as the base model was trained. */
export interface Tokenizer {
  /** Token ids, with the special tokens that this tokenizer puts around a text, such as a leading `<s>`. */
  encode(text: string): Uint32Array<ArrayBuffer>;
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** The token that ends a text, if the tokenizer names one. */
  readonly eosId: number | undefined;
  readonly bosId: number | undefined;
  /** Entries, special tokens included: ids are below it unless the vocabulary has gaps. */
  readonly vocabularySize: number;
}

/**
 * Opens `tokenizer.json` (and `tokenizer_config.json`, where there is one) of a Hugging Face model folder.
 *
 * @throws {ModelError} `missing_file`, `invalid_json`, `invalid_tokenizer`
 */
export async function openTokenizer(directory: string): Promise<Tokenizer> {
  const path = join(directory, "tokenizer.json");
  const definition = await readJsonFile(path) as object;
  const config = await readJsonFile(join(directory, "tokenizer_config.json")).catch((error) => {
    if (error instanceof ModelError && error.code === "missing_file") return {};
    throw error;
  }) as Record<string, unknown>;
  let tokenizer: HuggingFaceTokenizer;
  try {
    tokenizer = new HuggingFaceTokenizer(definition, config);
  } catch (error) {
    throw new ModelError(
      "invalid_tokenizer",
      `tokenizer.json could not be used: ${(error as Error).message}`,
      "take tokenizer.json from the model's original folder",
      path,
    );
  }
  const idOf = (key: string): number | undefined => {
    const token = tokenText(config[key]);
    return token === undefined ? undefined : tokenizer.token_to_id(token);
  };
  return {
    encode: (text) => Uint32Array.from(tokenizer.encode(text).ids),
    decode: (ids, { skipSpecial = true } = {}) => decodeIds(tokenizer, [...ids], skipSpecial),
    eosId: idOf("eos_token"),
    bosId: idOf("bos_token"),
    vocabularySize: tokenizer.get_vocab(true).size,
  };
}

/** The underlying library refuses to decode nothing. */
function decodeIds(tokenizer: HuggingFaceTokenizer, ids: number[], skipSpecial: boolean): string {
  return ids.length === 0 ? "" : tokenizer.decode(ids, { skip_special_tokens: skipSpecial });
}

/** Special tokens are written as text, or as an object with `content`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === "string" ? content : undefined;
}
