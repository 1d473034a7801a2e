import { assert, assertEquals } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import fc from "fast-check";
import { splice, template } from "./splices.ts";

const prompts = [
  [1, 2, 30, 31, 32, 8, 9],
  [1, 2, 40, 41, 8, 9],
  [1, 2, 50, 51, 52, 53, 8, 9],
].map((tokens) => Uint32Array.from(tokens));

Deno.test("template() finds what two prompts share at either end", () => {
  assertEquals(template(prompts[0]!, prompts[1]!), { prefix: 2, suffix: 2 });
});

Deno.test("template() never lets prefix and suffix overlap", () => {
  const tokens = fc.uint8Array({ max: 2, maxLength: 8 }).map((list) => Uint32Array.from(list));
  fc.assert(fc.property(tokens, tokens, (a, b) => {
    const { prefix, suffix } = template(a, b);
    assert(prefix + suffix <= Math.min(a.length, b.length));
    assertEquals(a.slice(0, prefix), b.slice(0, prefix));
    assertEquals(a.slice(a.length - suffix), b.slice(b.length - suffix));
  }));
});

Deno.test("splice() keeps the template and joins a head of one body to a tail of another", () => {
  const bodies = prompts.map((prompt) => [...prompt.subarray(2, prompt.length - 2)]);
  const splices = splice(prompts, { count: 25, random: seeded(1) });
  assertEquals(splices.length, 25);
  for (const made of splices) {
    assertEquals([...made.subarray(0, 2)], [1, 2]);
    assertEquals([...made.subarray(made.length - 2)], [8, 9]);
    const body = [...made.subarray(2, made.length - 2)];
    const cut = body.findIndex((token) => Math.floor(token / 10) !== Math.floor(body[0]! / 10));
    const [head, tail] = [body.slice(0, cut), body.slice(cut)];
    assert(cut > 0, `${body} has parts of two prompts`);
    assert(bodies.some((other) => other.slice(0, head.length).join() === head.join()), `${head} is a head`);
    assert(
      bodies.some((other) => other.slice(other.length - tail.length).join() === tail.join()),
      `${tail} is a tail`,
    );
  }
});

Deno.test("splice() makes no given prompt and nothing twice", () => {
  const splices = splice(prompts, { count: 40, random: seeded(2) }).map(String);
  assertEquals(new Set([...splices, ...prompts.map(String)]).size, splices.length + prompts.length);
});

Deno.test("splice() gives the same prompts when the generator starts the same", () => {
  const options = () => ({ count: 10, random: seeded(3) });
  assertEquals(splice(prompts, options()), splice(prompts, options()));
});

Deno.test("splice() gives what there is when the prompts allow no more", () => {
  assertEquals(splice(prompts.slice(0, 1), { count: 5, random: seeded(1) }), []);
  assertEquals(splice([prompts[0]!, prompts[0]!], { count: 5, random: seeded(1) }), []);
  const short = [[1, 2, 9], [1, 3, 9]].map((tokens) => Uint32Array.from(tokens));
  assertEquals(splice(short, { count: 99, random: seeded(1) }).map(String).sort(), ["1,2,3,9", "1,3,2,9"]);
});
