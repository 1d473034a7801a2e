import { assertEquals } from "@std/assert";
import { promptGroups } from "./prompt_groups.ts";

const prompts = [3, 1, 4, 9, 1, 1].map((length) => new Uint32Array(length));
const sizes = (groups: readonly (readonly Uint32Array[])[]) =>
  groups.map((group) => group.map(({ length }) => length));

Deno.test("promptGroups() keeps all prompts together when they fit", () => {
  assertEquals(sizes(promptGroups(prompts, 2, { tokens: 31, prompts: 6 })), [[3, 1, 4, 9, 1, 1]]);
});

Deno.test("promptGroups() starts a group where tokens or prompts exceed the limits, and keeps the order", () => {
  assertEquals(sizes(promptGroups(prompts, 2, { tokens: 10, prompts: 6 })), [[3, 1], [4], [9], [1, 1]]);
  assertEquals(sizes(promptGroups(prompts, 2, { tokens: Infinity, prompts: 4 })), [[3, 1, 4, 9], [1, 1]]);
});
