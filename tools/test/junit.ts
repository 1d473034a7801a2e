/** What became of one test. */
export interface TestResult {
  readonly file: string;
  readonly name: string;
  readonly outcome: "passed" | "failed" | "ignored";
  readonly seconds: number;
}

/**
 * Reads the report that `deno test --junit-path` writes. Steps belong to their test and are not listed; nor are tests
 * that a filter left out.
 */
export function parseJunit(xml: string): TestResult[] {
  const results: TestResult[] = [];
  for (const [, attributes, body] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const name = attribute(attributes!, "name") ?? "";
    const file = attribute(attributes!, "classname") ?? "";
    const time = attribute(attributes!, "time");
    // Deno writes no time for a test that was filtered out.
    if (time === undefined) continue;
    const isStep = results.some((test) => test.file === file && name.startsWith(`${test.name} > `));
    if (isStep) continue;
    const outcome = /<(?:failure|error)\b/.test(body ?? "")
      ? "failed"
      : /<skipped\b/.test(body ?? "")
      ? "ignored"
      : "passed";
    results.push({ file, name, outcome, seconds: Number(time) });
  }
  return results;
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

function attribute(text: string, name: string): string | undefined {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1];
  return value?.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex, decimal, entity) => {
    if (hex) return String.fromCodePoint(Number.parseInt(hex, 16));
    if (decimal) return String.fromCodePoint(Number(decimal));
    return ENTITIES[entity] ?? whole;
  });
}
