import { assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";

Deno.test("parseArgs() reads the flags of a command line of ours", () => {
  const flags = parseArgs(
    ["recipe.yaml", "--set", "parameters.rank=8", "--set=method=lego", "--json", "-o", "out"],
    {
      boolean: ["json", "quiet"],
      string: ["_", "set", "output", "device"],
      collect: ["set"],
      alias: { output: "o" },
      default: { device: "auto" },
    },
  );
  // The types are part of the contract.
  const set: string[] = flags.set;
  const output: string | undefined = flags.output;
  const device: string = flags.device;
  const json: boolean = flags.json;
  assertEquals({ set, output, device, json, quiet: flags.quiet, rest: flags._ }, {
    set: ["parameters.rank=8", "method=lego"],
    output: "out",
    device: "auto",
    json: true,
    quiet: false,
    rest: ["recipe.yaml"],
  });
});

Deno.test("parseArgs() turns numeric text into numbers unless the flag is a string", () => {
  assertEquals(parseArgs(["-x", "1234", "-y", "5.67", "--hex", "0xff", "-n5", "-w", "10f", "789"]), {
    x: 1234,
    y: 5.67,
    hex: 255,
    n: 5,
    w: "10f",
    _: [789],
  });
  assertEquals(parseArgs(["-s", "0012", "0012"], { string: ["s", "_"] }), { s: "0012", _: ["0012"] });
});

Deno.test("parseArgs() takes a value after a blank or an equals sign", () => {
  assertEquals(parseArgs(["--host", "localhost", "--key=a=b", "-b=c"]), {
    host: "localhost",
    key: "a=b",
    b: "c",
    _: [],
  });
});

Deno.test("parseArgs() gives true or an empty string where a value is missing", () => {
  assertEquals(parseArgs(["--a", "--b"], { string: "b" }), { a: true, b: "", _: [] });
  assertEquals(parseArgs(["--b", "--a"], { string: "b" }), { a: true, b: "", _: [] });
  assertEquals(parseArgs(["--b="], { string: "b" }), { b: "", _: [] });
});

Deno.test("parseArgs() does not give a boolean flag the next argument", () => {
  assertEquals(parseArgs(["--json", "file"], { boolean: ["json"] }), { json: true, _: ["file"] });
  assertEquals(parseArgs(["--json", "false", "-q", "true"], { boolean: ["json", "q"] }), {
    json: false,
    q: true,
    _: [],
  });
  assertEquals(parseArgs(["--json=false"], { boolean: "json" }).json, false);
  assertEquals(parseArgs(["moo", "--honk", "cow", "--tacos=good"], { boolean: true }), {
    honk: true,
    tacos: "good",
    _: ["moo", "cow"],
  });
});

Deno.test("parseArgs() reads clusters of short flags", () => {
  assertEquals(parseArgs(["-cats", "meow"]), { c: true, a: true, t: true, s: "meow", _: [] });
  assertEquals(parseArgs(["-123", "456"]), { 1: true, 2: true, 3: 456, _: [] });
  assertEquals(parseArgs(["-xyz/foo"]), { x: true, y: true, z: "/foo", _: [] });
  assertEquals(parseArgs(["-art"], { string: ["a", "t"] }), { a: "", r: true, t: "", _: [] });
});

Deno.test("parseArgs() takes a lone hyphen for a value", () => {
  assertEquals(parseArgs(["-n", "-"]), { n: "-", _: [] });
  assertEquals(parseArgs(["-"]), { _: ["-"] });
  assertEquals(parseArgs(["-f-"]), { f: "-", _: [] });
});

Deno.test("parseArgs() negates only negatable flags", () => {
  assertEquals(parseArgs(["--no-color"], { boolean: ["color"], negatable: ["color"] }), {
    color: false,
    _: [],
  });
  assertEquals(
    parseArgs(["--no-color", "--color"], { boolean: ["color"], negatable: ["color"] }).color,
    true,
  );
  assertEquals(parseArgs(["--no-color"]), { "no-color": true, _: [] });
});

Deno.test("parseArgs() keeps the last value of a flag, and all values of a collected one", () => {
  assertEquals(parseArgs(["-v", "a", "-v", "b"]), { v: "b", _: [] });
  assertEquals(parseArgs(["-v", "a", "-v", "b"], { collect: ["v"] }), { v: ["a", "b"], _: [] });
  assertEquals(parseArgs([], { collect: ["v"], string: ["v"] }), { v: [], _: [] });
  assertEquals(parseArgs([], { collect: ["v"], default: { v: ["x"] } }), { v: ["x"], _: [] });
  assertEquals(parseArgs(["-v", "a"], { collect: ["v"], default: { v: ["x"] } }), { v: ["a"], _: [] });
});

Deno.test("parseArgs() sets every alias of a flag", () => {
  const options = { boolean: "h", alias: { h: ["help", "usage"] } } as const;
  for (const argument of ["-h", "--help", "--usage"]) {
    assertEquals(parseArgs([argument], options), { h: true, help: true, usage: true, _: [] });
  }
  assertEquals(parseArgs([], { boolean: ["bar"], alias: { bar: "b" } }), { bar: false, b: false, _: [] });
});

Deno.test("parseArgs() fills in defaults, null and dotted ones too", () => {
  assertEquals(parseArgs([], { boolean: "maybe", default: { maybe: null } }).maybe, null);
  assertEquals(parseArgs([], { default: { "a.b": 11 }, alias: { "a.b": "aa.bb" } }), {
    a: { b: 11 },
    aa: { bb: 11 },
    _: [],
  });
});

Deno.test("parseArgs() nests dotted names", () => {
  assertEquals(parseArgs(["--foo.bar", "3", "--foo.deep.er", "--beep.boop=x"]), {
    foo: { bar: 3, deep: { er: true } },
    beep: { boop: "x" },
    _: [],
  });
});

Deno.test("parseArgs() cannot be made to change a prototype", () => {
  parseArgs(["--__proto__.polluted=yes", "--constructor.prototype.polluted=yes"]);
  assertEquals(({} as Record<string, unknown>).polluted, undefined);
});

Deno.test("parseArgs() stops at a bare double hyphen", () => {
  assertEquals(parseArgs(["-a", "--", "b", "--c", "7"]), { a: true, _: ["b", "--c", "7"] });
  assertEquals(parseArgs(["--name", "x", "before", "--", "after"], { "--": true }), {
    name: "x",
    _: ["before"],
    "--": ["after"],
  });
});

Deno.test("parseArgs() stops at the first other argument when stopEarly is set", () => {
  assertEquals(parseArgs(["--aaa", "bbb", "ccc", "--ddd"], { stopEarly: true }), {
    aaa: "bbb",
    _: ["ccc", "--ddd"],
  });
});

Deno.test("parseArgs() asks about arguments that were not declared", () => {
  const seen: unknown[] = [];
  const flags = parseArgs(["--jso", "--rank", "8", "-p", "55", "cow", "--output", "x", "--json"], {
    boolean: ["json"],
    string: ["output"],
    unknown: (argument, key, value) => {
      seen.push([argument, key, value]);
      return false;
    },
  });
  assertEquals(seen, [
    ["--jso", "jso", true],
    ["--rank", "rank", "8"],
    ["-p", "p", "55"],
    ["cow", undefined, undefined],
  ]);
  assertEquals(flags, { output: "x", json: true, _: [] });
});

Deno.test("parseArgs() keeps unknown arguments when the callback does not return false", () => {
  assertEquals(parseArgs(["--rank", "8", "cow"], { boolean: ["json"], unknown: () => true }), {
    rank: 8,
    json: false,
    _: ["cow"],
  });
});
