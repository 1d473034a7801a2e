import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { writePage } from "../bench/main.ts";
import { ceilingsOf } from "./ceilings.ts";
import { PageError, renewFile, renewPage } from "./page.ts";
import { type Figure, type Results, slug } from "./results.ts";
import { TABLES } from "./tables.ts";

const figure = (changes: Partial<Figure>): Figure => ({
  name: "gemm f32 4096³",
  milliseconds: 2,
  speed: 60,
  unit: "TFLOP/s",
  bound: "f32",
  part: 1,
  error: 1.25,
  ...changes,
});

const results = (changes: Partial<Results> = {}): Results => ({
  device: { name: "Some GPU (rev 2)", class: "gpu", driver: "driver 1.2" },
  profile: "safe",
  dawn: "0.6.2",
  commit: "abc1234",
  peaks: { f32: 80, memory: 1000 },
  figures: [figure({})],
  iteris: [],
  lego: null,
  torch: null,
  ...changes,
});

/** The cells of a Markdown table's row that starts with `name`. */
function row(table: string, name: string): string[] {
  const line = table.split("\n").find((text) => text.startsWith(`| ${name} |`));
  assert(line, `${name} is missing in\n${table}`);
  return line.split("|").slice(2, -1).map((cell) => cell.trim());
}

Deno.test("renewPage() replaces what stands between markers and keeps the prose", () => {
  const page = [
    "# Figures",
    "<!-- measured gpu.json device -->",
    "something older",
    "",
    "of two paragraphs",
    "<!-- end -->",
    "Prose, <!-- measured in passing -->.",
    "<!-- measured other.json device -->",
    "<!-- end -->",
    "",
  ].join("\n");
  const files: Record<string, Results> = { "gpu.json": results(), "other.json": results({ commit: null }) };
  const renewed = renewPage(page, (file) => files[file]!);
  const sentence = "Some GPU (rev 2), driver 1.2, Dawn (npm `webgpu` 0.6.2), profile `safe`";
  assertEquals(
    renewed,
    [
      "# Figures",
      "<!-- measured gpu.json device -->",
      `${sentence}, commit abc1234.`,
      "<!-- end -->",
      "Prose, <!-- measured in passing -->.",
      "<!-- measured other.json device -->",
      `${sentence}.`,
      "<!-- end -->",
      "",
    ].join("\n"),
  );
  assertEquals(renewPage(renewed, (file) => files[file]!), renewed);
});

Deno.test("renewPage() refuses markers that do not pair, and tables that do not exist", () => {
  const renew = (page: string) => () => renewPage(page, () => results());
  for (
    const page of [
      "<!-- measured a.json device -->\ntext\n",
      "text\n<!-- end -->\n",
      "<!-- measured a.json -->\n<!-- end -->\n",
    ]
  ) assertStringIncludes(assertThrows(renew(page), PageError).message, "stands alone");
  const unknown = assertThrows(renew("<!-- measured a.json speeds -->\n<!-- end -->\n"), PageError);
  assertStringIncludes(unknown.message, "no table speeds");
});

Deno.test("the products' table compares with the ceiling and with PyTorch", () => {
  const measured = results({
    figures: [
      figure({}),
      figure({ name: "gram [8, 4] of columns", speed: 100, part: 0.5, error: null }),
      figure({ name: "cholesky + solve f32, 64, 2 right-hand sides", milliseconds: 4 }),
      figure({ name: "cholesky + solve to a float64 residual, 64, 2 right-hand sides", error: 4.1e-7 }),
      figure({ name: "cast", unit: "GB/s" }),
    ],
    torch: {
      device: "Some GPU",
      version: "PyTorch 9",
      milliseconds: {
        "gemm f32 4096³": 3,
        "cholesky + solve f32, 64, 2 right-hand sides": 2,
        "cholesky + solve f64, 64, 2 right-hand sides": 5,
      },
    },
  });
  const table = TABLES.products!(measured);
  assertEquals(row(table, "gemm f32 4096³"), ["2.00", "60.0", "75 %", "3.00", "**1.50**", "1.3"]);
  // 100 of the full product are 50 done, of 80.
  assertEquals(row(table, "gram [8, 4] of columns"), ["2.00", "100 *", "63 %", "–", "–", "–"]);
  assertEquals(row(table, "cholesky + solve f32, 64, 2 right-hand sides").slice(3, 5), [
    "2.00 / 5.00",
    "0.50 / **1.25**",
  ]);
  assertEquals(row(table, "cholesky + solve to a float64 residual, 64, 2 right-hand sides").slice(3), [
    "5.00",
    "**2.50**",
    "4e-7",
  ]);
  assert(!table.includes("cast"));
  const alone = TABLES.products!(results());
  assertEquals(row(alone, "gemm f32 4096³"), ["2.00", "60.0", "75 %", "1.3"]);
});

Deno.test("the tables of a software driver are in GFLOP/s", () => {
  const measured = results({
    device: { name: "llvmpipe", class: "software", driver: "Mesa" },
    peaks: { f32: 0.04, memory: 10 },
    figures: [figure({ speed: 0.01 })],
  });
  assertStringIncludes(TABLES.products!(measured), "| GFLOP/s |");
  assertEquals(row(TABLES.products!(measured), "gemm f32 4096³").slice(1, 3), ["10.0", "25 %"]);
  assertEquals(
    TABLES.ceilings!(measured),
    "Ceilings (measured in the same run): f32 40.0 GFLOP/s, memory 10.0 GB/s.",
  );
});

Deno.test("the tables of movements, IterIS and LoRA-LEGO show what is there and leave a dash where nothing is", () => {
  const measured = results({
    figures: [
      figure({ name: "cast", unit: "GB/s", bound: "memory", speed: 250, error: 0 }),
      figure({ name: "upload", unit: "GB/s", bound: "link", speed: 5, error: 0 }),
    ],
    iteris: [{
      method: "iteris",
      layers: 2,
      scale: 1,
      seconds: 3,
      secondsOf32Layers: 48,
      backwardError: 2e-15,
    }],
    lego: {
      layers: 4,
      adapters: 5,
      adapterRank: 64,
      rank: 128,
      seconds: { total: 10, read: 1, compute: 7, write: 2 },
      ratio_to_plain_io: 2.5,
    },
  });
  assertEquals(row(TABLES.movements!(measured), "cast"), ["250", "25 %", "none"]);
  assertEquals(row(TABLES.movements!(measured), "upload"), ["5.00", "–", "none"]);
  assertEquals(row(TABLES.iteris!(measured), "iteris"), ["2", "3.00", "48.0", "2.0e-15"]);
  assertEquals(row(TABLES.lego!(measured), "5 adapters of rank 64 into rank 128, 4 layers"), [
    "10.0",
    "1.00",
    "7.00",
    "2.00",
    "2.5",
    "–",
  ]);
  assertEquals(TABLES.lego!(results()), "Not measured.");
});

Deno.test("ceilingsOf() takes what a maker states, else what was measured", () => {
  const h100 = results({
    device: { name: "NVIDIA H100 80GB HBM3", class: "tensor", driver: "" },
    peaks: null,
  });
  const { speeds, source } = ceilingsOf(h100);
  assertStringIncludes(source, "H100");
  assertEquals([speeds["f32 in parts"], speeds["f32 by 16 bits"]], [speeds.f16! / 3, speeds.f16! / 2]);
  assertEquals(ceilingsOf(results()).speeds, { f32: 80, memory: 1000 });
  assertEquals(ceilingsOf(results({ peaks: null })).speeds, {});
});

Deno.test("slug() makes names of files from names of devices", () => {
  assertEquals(slug("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
  assertEquals(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe");
});

Deno.test("writePage() leaves the results beside the page, from where renewFile() makes it again", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const page = join(folder, "speeds.md");
    await Deno.writeTextFile(
      page,
      "before\n<!-- measured speeds/some-gpu.json products -->\n<!-- end -->\nafter\n",
    );
    await writePage(page, results());
    const written = await Deno.readTextFile(page);
    assertStringIncludes(written, "| gemm f32 4096³ | 2.00 |");
    const { before, after } = await renewFile(page);
    assertEquals(before, after);
    assertEquals(JSON.parse(await Deno.readTextFile(join(folder, "speeds/some-gpu.json"))), results());
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
