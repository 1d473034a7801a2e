import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { rangeOf, svgPlot } from "./svg.ts";

const PLOT = {
  title: "a < b",
  positions: ["<script>", "second"],
  series: [{ label: "x & y", style: "s0", values: [0.25, null] }],
  range: [0, 1] as const,
};

Deno.test("svgPlot() escapes names and leaves gaps for missing values", () => {
  const svg = svgPlot(PLOT);
  assert(!svg.includes("<script>") && !svg.includes("a < b"));
  assertStringIncludes(svg, "&lt;script&gt;: x &amp; y 0.2500");
  assertEquals(svg.match(/<circle/g)!.length, 1);
});

Deno.test("svgPlot() draws low values below high ones", () => {
  const y = (value: number) =>
    Number(
      /cy="([\d.]+)"/.exec(svgPlot({ ...PLOT, series: [{ label: "", style: "", values: [value] }] }))![1],
    );
  assert(y(0.1) > y(0.9));
});

Deno.test("rangeOf() holds every value and is never empty", () => {
  for (const values of [[1, 2, 3], [5], [null], [], [-1, null, 4]]) {
    const [low, high] = rangeOf(values, 0.1);
    assert(
      high - low >= 0.1 - 1e-12 && values.every((value) => value === null || (low <= value && value <= high)),
      String(values),
    );
  }
});
