import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { PatternError } from "./pattern_node.ts";
import { PythonPattern } from "./python_pattern.ts";

/** Patterns in the part of the syntax where Python and JavaScript agree on ASCII text. */
const { pattern: anyPattern } = fc.letrec<{ pattern: string; piece: string; atom: string }>((tie) => ({
  pattern: fc.oneof(
    { maxDepth: 3 },
    fc.array(tie("piece"), { maxLength: 4 }).map((pieces) => pieces.join("")),
    fc.tuple(tie("pattern"), tie("pattern")).map((choices) => choices.join("|")),
  ),
  piece: fc.oneof(
    fc.tuple(tie("atom"), fc.constantFrom("", "", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{0,}")).map((
      parts,
    ) => parts.join("")),
    fc.constantFrom("^", "$"),
  ),
  atom: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    fc.constantFrom(
      "a",
      "b",
      "1",
      ".",
      "\\.",
      "\\d",
      "\\D",
      "\\w",
      "\\W",
      "[ab]",
      "[^a]",
      "[a-z1]",
      "[\\d.-]",
      "_",
    ),
    tie("pattern").map((inner) => `(${inner})`),
    tie("pattern").map((inner) => `(?:${inner})`),
  ),
}));

Deno.test("PythonPattern.matches() agrees with RegExp where the two languages do", () => {
  let matched = 0;
  fc.assert(
    fc.property(
      anyPattern,
      fc.array(fc.constantFrom("a", "b", "1", ".", "_", "-"), { maxLength: 6 }),
      (source, parts) => {
        const text = parts.join("");
        const expected = new RegExp(`^(?:${source})$`).test(text);
        if (expected) matched++;
        assertEquals(new PythonPattern(source).matches(text), expected, `${source} on ${text}`);
      },
    ),
    { seed: 8, numRuns: 3000 },
  );
  assert(matched > 300, `only ${matched} matches`);
});

/** Expected values from Python 3.11: bool(re.fullmatch(pattern, text)). */
const PYTHON: readonly [pattern: string, text: string, matches: boolean][] = [
  ["(?P<layer>\\d+)\\.q", "12.q", true],
  ["[]a]+", "]a]", true],
  ["[^]a]+", "bc", true],
  ["[a-]", "-", true],
  ["a{,2}", "aa", true],
  ["a{,2}", "aaa", false],
  ["a.c", "a\nc", false],
  ["\\w+", "größe", true],
  ["\\d", "٣", true],
  [".", "😀", true],
  ["a\\-b\\/c", "a-b/c", true],
  ["", "", true],
  ["a|", "", true],
];

for (const [pattern, text, matches] of PYTHON) {
  Deno.test(`PythonPattern ${JSON.stringify(pattern)} ${matches ? "matches" : "does not match"} ${JSON.stringify(text)} as in Python`, () => {
    assertEquals(new PythonPattern(pattern).matches(text), matches);
  });
}

Deno.test("PythonPattern refuses what it does not know, and what is no pattern", () => {
  const sources = [
    "(?=a)",
    "(?!a)",
    "(?<=a)",
    "(?i)a",
    "(?P=x)",
    "\\1",
    "(a)\\1",
    "\\bq",
    "\\Aq",
    "\\Z",
    "\\x41",
    "a*+",
    "a**",
    "a{2}{3}",
    "*a",
  ];
  for (
    const source of [
      ...sources,
      "(",
      ")",
      "a)(b",
      "[a",
      "[b-a]",
      "[\\d-z]",
      "{",
      "a{x}",
      "a{3,2}",
      "a\\",
      "^*",
      "(?>a)",
    ]
  ) {
    assertThrows(() => new PythonPattern(source), PatternError, undefined, source);
  }
});

Deno.test("PythonPattern.matches() takes linear time where a backtracking engine would hang", () => {
  assert(!new PythonPattern("(a*)*b").matches("a".repeat(1000)));
  assert(!new PythonPattern("(a|a|a)*(a|aa)+c").matches("a".repeat(1000)));
  assert(new PythonPattern("(.*\\.)?(.*.*.*.*.*.*q)").matches(`${"x.".repeat(400)}q`));
});

Deno.test("PythonPattern refuses patterns that grow beyond measure", () => {
  for (
    const source of [
      "((a{999}){999}){999}",
      "(((){9999}){9999}){9999}",
      "a".repeat(3000),
      "(".repeat(60) + ")".repeat(60),
    ]
  ) {
    assertThrows(() => new PythonPattern(source), PatternError);
  }
});
