import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ServerError } from "./errors.ts";
import { DEFAULT_LIMITS, LIMIT_HELP } from "./limits.ts";
import { readOptions } from "./main.ts";

Deno.test("readOptions() reads the command line", () => {
  const options = readOptions([
    "--host=0.0.0.0",
    "--port",
    "0",
    "--data",
    "here",
    "--models=models",
    "--device",
    "cpu",
    "--require-token",
    "--limit",
    "queue=5",
    "--limit=jobs=2",
  ]);
  assertEquals(options, {
    host: "0.0.0.0",
    port: 0,
    data: "here",
    models: "models",
    device: "cpu",
    requireToken: true,
    limits: { queue: 5, jobs: 2 },
  });
  assertEquals(readOptions([]), { data: ".loom-data", requireToken: false, limits: {} });
  assertEquals(readOptions(["--help"]), undefined);
});

Deno.test("readOptions() refuses what it does not know, and names the nearest", () => {
  const message = (...args: string[]) => assertThrows(() => readOptions(args), ServerError).message;
  assertEquals(/did you mean "--port"/.test(message("--prot", "1")), true);
  assertEquals(/did you mean "queue"/.test(message("--limit", "queu=5")), true);
  for (
    const args of [["--port", "x"], ["--port", "-1"], ["--limit", "queue"], ["--device", "tpu"], ["extra"], [
      "--models=",
    ]]
  ) message(...args);
});

Deno.test("every limit is explained", () => {
  assertEquals(Object.keys(LIMIT_HELP), Object.keys(DEFAULT_LIMITS));
});

Deno.test("the README lists every limit", async () => {
  const readme = await Deno.readTextFile(new URL("../README.md", import.meta.url));
  const unit = (bytes: number) =>
    bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : bytes >= 2 ** 20 ? [2 ** 20, "MiB"] : [1024, "KiB"];
  for (const [name, value] of Object.entries(DEFAULT_LIMITS)) {
    const [size, word] = unit(value) as [number, string];
    const text = name.endsWith("Bytes") ? `${value / size} ${word}` : String(value);
    assertStringIncludes(
      readme,
      `| \`${name}\` | ${text} | ${LIMIT_HELP[name as keyof typeof LIMIT_HELP]} |`,
    );
  }
});

Deno.test("readOptions() takes ports from 0 to 65535", () => {
  assertEquals(readOptions(["--port", "65535"])?.port, 65535);
  for (const port of ["99999", "65536", "-1", "abc", "1e3", ""]) {
    const error = assertThrows(() => readOptions([`--port=${port}`]), ServerError);
    assertEquals([error.code, error.where, error.status], ["flag_value", "--port", 400]);
    assertStringIncludes(error.message, "from 0 to 65535");
    assertStringIncludes(error.fix, "write --port 8420");
  }
});

Deno.test("readOptions() takes limits from 1, and from 0 where that closes something", () => {
  for (const name of Object.keys(DEFAULT_LIMITS) as (keyof typeof DEFAULT_LIMITS)[]) {
    const args = ["--limit", `${name}=0`];
    if (["adapters", "calibrations", "interruptions", "merges", "storeBytes"].includes(name)) {
      assertEquals(readOptions(args)?.limits, { [name]: 0 });
      continue;
    }
    const error = assertThrows(() => readOptions(args), ServerError);
    assertEquals([error.code, error.where, error.status], ["flag_value", `--limit ${name}`, 400]);
    assertStringIncludes(error.message, 'a whole number from 1, found "0"');
    assertEquals(readOptions(["--limit", `${name}=1`])?.limits, { [name]: 1 });
  }
  for (const setting of ["jobs", "jobs=", "jobs=-1", "jobs=2=3", "jobs=1e3"]) {
    assertThrows(() => readOptions(["--limit", setting]), ServerError);
  }
});

Deno.test("readOptions() advises what can be typed", () => {
  const refusal = (...args: string[]) => {
    const { message, fix, where } = assertThrows(() => readOptions(args), ServerError);
    return { message, fix, where };
  };
  assertEquals(refusal("--limit", "jobs"), {
    message: 'the limit jobs takes a whole number from 1, found ""',
    fix: "write --limit jobs=1",
    where: "--limit jobs",
  });
  assertEquals(refusal("--port", "abc"), {
    message: '--port takes a number from 0 to 65535, found "abc"',
    fix: "write --port 8420, or --port 0 for a free one",
    where: "--port",
  });
  assertEquals(refusal("extra"), {
    message: 'serve takes flags alone, found "extra"',
    fix: "leave it out, or write the flag that it belongs to before it; deno task serve --help lists them",
    where: "extra",
  });
  assertEquals(
    refusal("--prot=1").fix,
    "write --port, or leave it out; deno task serve --help lists all",
  );
  assertEquals(refusal("--limit", "queu=5").fix, "write --limit queue=N; deno task serve --help lists all");
  // Every piece of advice for a limit is one that is taken.
  for (const [name, value] of Object.entries(DEFAULT_LIMITS)) {
    const [, advice = ""] = /^write (--limit \S+)$/.exec(refusal("--limit", name).fix) ?? [];
    assertEquals(readOptions(advice.split(" "))?.limits, { [name]: value });
  }
});
