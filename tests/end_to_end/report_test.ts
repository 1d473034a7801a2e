/** `report.html` in a real browser: on a phone, on a wide screen, in the dark and printed. */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { accessibilityProblems } from "../support/accessibility.ts";
import { visit } from "../support/browser.ts";
import { captureSafetensors, gramOf, type HostMatrix } from "../support/captures.ts";
import { runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { openSafetensors } from "@lora-loom/formats";

const ADAPTERS = repositoryPath("examples/tiny-llama/adapters");

async function merge(folder: string, recipe: Record<string, unknown>): Promise<string> {
  await Deno.writeTextFile(
    `${folder}/recipe.yaml`,
    JSON.stringify({ device: "cpu", output: { path: "out" }, ...recipe }),
  );
  await runJson(["merge", `${folder}/recipe.yaml`, "--force"]);
  return `${folder}/out/report.html`;
}

/** Inputs of one adapter's layer, as the fixtures have them, under both adapters' names: what they are is all the same here. */
async function writeCapture(path: string): Promise<void> {
  using file = await openSafetensors(repositoryPath("tests/fixtures/tiny-llama/forward.safetensors"));
  const front = "language.inputs.";
  const grams = new Map<string, HostMatrix>();
  for (const [name, tensor] of file.tensors) {
    if (!name.startsWith(front) || !/layers\.[01]\.self_attn\.[qo]_proj/.test(name)) continue;
    const values = Float64Array.from(await tensor.readFloat32());
    const columns = tensor.shape.at(-1)!;
    grams.set(`${name.slice(front.length)}.gram`, gramOf({ rows: values.length / columns, columns, values }));
  }
  await Deno.writeFile(path, captureSafetensors(grams));
}

/** A phone and a desk. */
const SCREENS = [
  { viewport: { width: 360, height: 740 }, colorScheme: "dark" },
  { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
] as const;

/** Opens the report at each size and checks what a reader needs; gives its text. */
async function readReport(path: string): Promise<string> {
  return await visit("file://", { viewport: SCREENS[0]!.viewport }, async ({ page, complaints }) => {
    let text = "";
    for (const { viewport, colorScheme } of SCREENS) {
      const { width } = viewport;
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, media: "screen" });
      await page.goto(`file://${path}`);
      text = await page.locator("body").innerText();
      assertEquals(await page.evaluate<number>("innerWidth"), width);
      const wider = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
      assert(wider <= 0, `the page is ${wider} px wider than a screen of ${width}`);
      const plots = await page.evaluate<number[]>(
        "[...document.querySelectorAll('svg')].map((svg) => svg.getBoundingClientRect().width)",
      );
      assertGreater(plots.length, 2);
      assert(plots.every((own) => own > 200 && own <= width), plots.join());
      assertEquals(await accessibilityProblems(page), [], `at ${width}, ${colorScheme}`);
    }
    await page.emulateMedia({ colorScheme: "dark", media: "print" });
    const ground = await page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    assertEquals(ground, "rgb(255, 255, 255)", "paper is white in the dark too");
    const pdf = await page.pdf({ format: "A4" });
    assertStringIncludes(new TextDecoder("latin1").decode(pdf.slice(0, 8)), "%PDF-");
    assertEquals(complaints, []);
    return text;
  });
}

Deno.test("report.html of a LEGO merge shows similarity, losses, clusters and where it loads, on every screen and on paper", () =>
  withFolder(async (folder) => {
    const adapters = ["language", "category", "speech"].map((name) => ({ path: `${ADAPTERS}/${name}` }));
    const text = await readReport(
      await merge(folder, { method: "lego", adapters, include: ["*.self_attn.*"] }),
    );
    for (
      const part of [
        "How alike they are",
        "Units in each cluster",
        "mean of each layer",
        "Where it loads",
        "ComfyUI",
      ]
    ) assertStringIncludes(text, part);
  }));

Deno.test("report.html of an IterIS merge shows output errors before and after, by module and by layer", () =>
  withFolder(async (folder) => {
    await writeCapture(`${folder}/inputs.safetensors`);
    const adapters = ["language", "category"].map((name) => ({
      path: `${ADAPTERS}/${name}`,
      capture: "inputs.safetensors",
    }));
    const include = ["*.layers.{0,1}.self_attn.{q,o}_proj"];
    const text = await readReport(await merge(folder, { method: "iteris", adapters, include }));
    for (const part of ["Relative output error", "sum of the deltas", "Output error, mean of each layer"]) {
      assertStringIncludes(text, part);
    }
  }));

Deno.test("report.html of an elementwise merge shows the spectrum before the cut", () =>
  withFolder(async (folder) => {
    const adapters = ["language", "category"].map((name) => ({ path: `${ADAPTERS}/${name}` }));
    const include = ["*.layers.{0,1}.self_attn.k_proj"];
    const text = await readReport(await merge(folder, { method: "ties", adapters, include }));
    assertStringIncludes(text, "Singular values of the result before it was cut");
  }));
