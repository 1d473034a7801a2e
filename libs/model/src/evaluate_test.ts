import { assertEquals, assertRejects } from "@std/assert";
import type { GenerateOptions } from "./base_model.ts";
import { evaluate } from "./evaluate.ts";
import { ModelError } from "./errors.ts";

const END = 0;

/** Tokens are characters, and the "model" answers with a prompt's upper-case letters. */
const tokenizer = {
  encode: (text: string) => Uint32Array.from(text, (character) => character.codePointAt(0)!),
  decode: (ids: Iterable<number>) => String.fromCodePoint(...[...ids].filter((id) => id !== END)),
  eosId: END,
};

class Shouter {
  readonly calls: { prompts: number; options: GenerateOptions }[] = [];

  generate(
    prompts: readonly Uint32Array[],
    _deltas: unknown,
    options: GenerateOptions,
  ): Promise<Uint32Array[]> {
    this.calls.push({ prompts: prompts.length, options });
    return Promise.resolve(prompts.map((prompt) => {
      const answer = tokenizer.decode(prompt).replace(/[a-z]/g, "");
      return Uint32Array.of(...tokenizer.encode(answer), END);
    }));
  }
}

const rows = [
  { prompt: "aBc", completion: "B" },
  { prompt: "a BC ", completion: "BC" },
  { prompt: "aB", completion: " B\n" },
  { prompt: "aBB", completion: "B" },
  { prompt: "abc", completion: "C" },
];

Deno.test("evaluate() counts completions that are wholly right after trimming", async () => {
  const result = await evaluate({ model: new Shouter(), tokenizer, deltas: new Map(), rows });
  assertEquals(result, { accuracy: 0.6, n: 5, outputs: ["B", "BC", "B", "BB", ""] });
});

Deno.test("evaluate() cuts the rows into batches and passes the limits on", async () => {
  const model = new Shouter();
  await evaluate({ model, tokenizer, deltas: new Map(), rows, batch: 2, maxNewTokens: 3 });
  assertEquals(model.calls.map(({ prompts }) => prompts), [2, 2, 1]);
  assertEquals(model.calls[0]!.options, { maxNewTokens: 3, eos: END });
});

Deno.test("evaluate() takes the given end tokens over the tokenizer's, and needs one of them", async () => {
  const model = new Shouter();
  const silent = { ...tokenizer, eosId: undefined };
  await evaluate({ model, tokenizer: silent, deltas: new Map(), rows, eos: [7, 8] });
  assertEquals(model.calls[0]!.options, { maxNewTokens: 6, eos: [7, 8] });
  const error = await assertRejects(
    () => evaluate({ model, tokenizer: silent, deltas: new Map(), rows }),
    ModelError,
  );
  assertEquals(error.code, "no_end_token");
});
