/** The web page in a real browser, from dropping adapters to the downloaded result. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { unzipSync } from "fflate";
import type { Download, Locator, Page } from "playwright-core";
import { type RunningServer, type ServerOptions, startServer } from "@lora-loom/server";
import { writeBiasedAdapter } from "../support/adapters.ts";
import { accessibilityProblems } from "../support/accessibility.ts";
import { dropPaths, visit } from "../support/browser.ts";
import { runCli } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const adapter = (name: string) => `${EXAMPLE}/adapters/${name}`;
const prompts = (name: string) => `${EXAMPLE}/tasks/${name}.train.jsonl`;

interface Setting {
  readonly page: Page;
  readonly server: RunningServer;
  readonly folder: string;
}

/** How a server and a browser are set up. */
interface Options extends Partial<ServerOptions> {
  /** Statuses that the page is meant to meet; browsers complain of each in their console. */
  readonly refusals?: readonly number[];
}

/** Runs `body` with a server and a browser on its page; the page must have nothing else to complain of. */
async function inBrowser(
  { refusals = [], ...options }: Options,
  body: (setting: Setting) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const server = await startServer({ data: `${folder}/data`, port: 0, models: EXAMPLE, ...options });
    try {
      const view = { viewport: { width: 1200, height: 900 }, acceptDownloads: true };
      await visit(server.url, view, async ({ page, complaints }) => {
        page.setDefaultTimeout(60_000);
        await page.goto(server.url);
        await page.locator("h1").waitFor();
        await body({ page, server, folder });
        const isMeant = (line: string) => refusals.some((status) => line.includes(`status of ${status}`));
        assertEquals(complaints.filter((line) => !isMeant(line)), []);
      });
    } finally {
      await server.stop();
    }
  });
}

/** Looks at a page in light on a wide screen and in dark on a phone. */
async function checkAccessibility(page: Page, name: string): Promise<void> {
  for (const [colorScheme, width] of [["light", 1200], ["dark", 390]] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height: 900 });
    assertEquals(await accessibilityProblems(page), [], `${name}, ${colorScheme}, ${width} wide`);
    const overflow = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
    assert(overflow <= 0, `${name} is ${overflow} px wider than a screen of ${width}`);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize({ width: 1200, height: 900 });
}

async function unzipped(download: Download): Promise<Record<string, Uint8Array>> {
  return unzipSync(await Deno.readFile(await download.path()));
}

/** Starts the merge on the page, and downloads its archive when it is done. */
async function mergeAndDownload(page: Page): Promise<Record<string, Uint8Array>> {
  await page.getByRole("button", { name: "Start the merge" }).click();
  const link = page.getByRole("link", { name: "Download as zip" });
  await link.waitFor({ timeout: 300_000 });
  return await downloadBy(page, link);
}

async function downloadBy(page: Page, control: Locator): Promise<Record<string, Uint8Array>> {
  const [download] = await Promise.all([page.waitForEvent("download"), control.click()]);
  return await unzipped(download);
}

/** The report stands in the page whole, with its plots, and needs no scrolling of its own. */
async function checkReport(page: Page): Promise<void> {
  const report = page.frameLocator("iframe");
  await report.getByRole("img", { name: /^Cosine of the merged delta/ }).waitFor();
  await page.waitForFunction(() => {
    const { document } = globalThis as unknown as { document: { querySelector(name: string): Frame } };
    const { contentDocument, clientHeight } = document.querySelector("iframe");
    return contentDocument.documentElement.scrollHeight === clientHeight;
  });
}

/** What the test looks at of a frame. */
interface Frame {
  readonly contentDocument: { readonly documentElement: { readonly scrollHeight: number } };
  readonly clientHeight: number;
}

/** What the runner writes for the recipe that the page shows. */
async function runnersWeights(recipe: string, folder: string): Promise<Uint8Array> {
  // The page names adapters and prompts; the runner needs to know where they are.
  const text = recipe.replaceAll("path: adapters/", `path: ${EXAMPLE}/adapters/`)
    .replaceAll("calibration: ", `calibration: ${EXAMPLE}/tasks/`).replace(
      "base_model: base",
      `base_model: ${EXAMPLE}/base`,
    );
  await Deno.writeTextFile(`${folder}/recipe.yaml`, text);
  const { code, stderr } = await runCli(["merge", `${folder}/recipe.yaml`]);
  assertEquals(code, 0, stderr);
  return await Deno.readFile(`${folder}/merged/adapter_model.safetensors`);
}

const recipeOf = (page: Page) => page.getByRole("region", { name: "recipe.yaml" }).innerText();

/** Opens what is folded away. */
async function unfold(page: Page, name: RegExp): Promise<void> {
  await page.locator("summary").filter({ hasText: name }).click();
}

Deno.test("the page merges dropped adapters with LEGO; the download equals the runner's result", () =>
  inBrowser({}, async ({ page, folder }) => {
    await checkAccessibility(page, "the empty page");
    await dropPaths(page, ".drop", [adapter("language"), adapter("speech")]);
    for (const name of ["language", "speech"]) {
      await page.getByRole("slider", { name: `Weight of ${name}` }).waitFor();
    }
    await page.getByLabel("Weight of language as a number").fill("0.5");
    assertEquals(await page.getByRole("slider", { name: "Weight of language" }).inputValue(), "0.5");
    await page.getByRole("slider", { name: "Weight of speech" }).focus();
    await page.keyboard.press("ArrowRight");
    await page.getByLabel("rank", { exact: true }).fill("6");
    await unfold(page, /^More parameters/);
    await page.getByLabel("features", { exact: true }).selectOption("unit");
    const recipe = await recipeOf(page);
    for (const line of ["weight: 0.5", "weight: 1.05", "rank: 6", "features: unit"]) {
      assertStringIncludes(recipe, line);
    }
    await page.getByRole("button", { name: "Details of language" }).click();
    await page.getByText("‖ΔW‖ =").waitFor();
    await checkAccessibility(page, "the page with adapters");

    const files = await mergeAndDownload(page);
    assertEquals(await recipeOf(page), recipe);
    const [weights] = Object.entries(files).filter(([name]) => name.endsWith("adapter_model.safetensors"));
    assertEquals(weights![1], await runnersWeights(recipe, folder));
    await checkReport(page);
    await unfold(page, /another program/);
    const mlx = await downloadBy(page, page.getByRole("button", { name: "mlx", exact: true }));
    assertEquals(Object.keys(mlx).map((name) => name.split("/").at(-1)).sort(), [
      "README.md",
      "adapter_config.json",
      "adapters.safetensors",
    ]);
    await checkAccessibility(page, "a merge that is done");
  }));

Deno.test("the page merges with IterIS, with prompts and the base model; the download equals the runner's result", () =>
  inBrowser({}, async ({ page, folder }) => {
    await dropPaths(page, ".drop", [adapter("language"), adapter("speech")]);
    await page.getByRole("slider", { name: "Weight of speech" }).waitFor();
    await page.getByRole("radio", { name: "iteris", exact: true }).check();
    assert(await page.getByRole("button", { name: "Start the merge" }).isDisabled());
    await page.getByText(/Add calibration prompts for/).waitFor();
    await page.locator("#pick-calibration").setInputFiles([prompts("speech"), prompts("language")]);
    await page.getByLabel("samples", { exact: true }).fill("4");
    await unfold(page, /^More parameters/);
    await page.getByLabel("max new tokens", { exact: true }).fill("2");
    await page.getByLabel("agreement prompts", { exact: true }).fill("0");
    await unfold(page, /^Name, layout/);
    await page.getByLabel("only modules").fill("*.v_proj");
    await page.getByRole("button", { name: "Start the merge", disabled: false }).waitFor();
    const recipe = await recipeOf(page);
    assertStringIncludes(recipe, "base_model: base");
    const files = await mergeAndDownload(page);
    const [weights] = Object.entries(files).filter(([name]) => name.endsWith("adapter_model.safetensors"));
    assertEquals(weights![1], await runnersWeights(recipe, folder));
  }));

Deno.test("the page works with the keyboard alone, finds old merges, and takes them up again", () =>
  inBrowser({ device: "cpu" }, async ({ page, server }) => {
    await page.locator("#pick-folder").setInputFiles(adapter("category"));
    const box = page.getByRole("checkbox", { name: "category" });
    await box.waitFor();
    assert(await box.isChecked());
    const focusOn = async (name: string) => {
      const focused = "document.activeElement.innerText || document.activeElement.value";
      const isThere = async () => await page.evaluate<string>(focused) === name;
      for (let count = 0; count < 80; count++) {
        if (await isThere()) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`the keyboard does not reach ${name}`);
    };
    await page.locator("h1").click();
    await focusOn("lego");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Tab");
    assertStringIncludes(await recipeOf(page), "method: svd");
    await focusOn("Start the merge");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Download as zip" }).waitFor();
    await page.getByRole("link", { name: "History" }).click();
    await page.getByRole("link", { name: /category/ }).click();
    await page.getByRole("button", { name: "Change and run again" }).click();
    await page.getByRole("slider", { name: "Weight of category" }).waitFor();
    assertStringIncludes(await recipeOf(page), "method: svd");
    await page.getByRole("link", { name: "History" }).click();
    await checkAccessibility(page, "the history");
    assertEquals(server.services.merges.list(10).map(({ state }) => state), ["done"]);
  }));

Deno.test("the page shows what was refused and why, and follows a merge that waits, fails or is cancelled", () =>
  inBrowser({ device: "cpu", refusals: [413, 422] }, async ({ page, folder, server }) => {
    await Deno.mkdir(`${folder}/broken`);
    await Deno.copyFile(
      `${adapter("language")}/adapter_config.json`,
      `${folder}/broken/adapter_config.json`,
    );
    await Deno.writeTextFile(`${folder}/broken/adapter_model.safetensors`, "this is no safetensors file");
    await dropPaths(page, ".drop", [`${folder}/broken`]);
    await page.getByText("broken was refused").waitFor();
    await checkAccessibility(page, "a refused upload");
    await page.getByRole("button", { name: "Dismiss" }).click();
    await dropPaths(page, ".drop", [await writeBiasedAdapter(`${folder}/biased`)]);
    await page.getByRole("button", { name: /^Take it without .*lora_B.bias$/ }).click();
    await page.getByText(/ without .*lora_B.bias$/).waitFor();
    assertStringIncludes(await recipeOf(page), "drop: [");
    await page.getByRole("checkbox", { name: "biased" }).uncheck();
    await dropPaths(page, ".drop", [adapter("language")]);
    await page.getByRole("slider", { name: "Weight of language" }).waitFor();
    await page.getByRole("radio", { name: "iteris", exact: true }).check();
    await page.locator("#pick-calibration").setInputFiles([prompts("language")]);
    await page.getByRole("button", { name: "Start the merge", disabled: false }).click();
    await page.getByRole("button", { name: "Cancel" }).waitFor();
    await checkAccessibility(page, "a merge that runs");
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("This merge was cancelled").waitFor();
    assertEquals(server.services.merges.list(1)[0]?.state, "cancelled");
  }));

Deno.test("the page asks for the token and opens with it, or with the address that was printed", () =>
  inBrowser({ device: "cpu", requireToken: true, refusals: [401] }, async ({ page, server }) => {
    await page.getByText("This server asks for a token").waitFor();
    await checkAccessibility(page, "the gate");
    await page.getByLabel("Token").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("This is not the server's token").or(
      page.getByText("this is not the server's token"),
    ).waitFor();
    await page.getByLabel("Token").fill(server.token!);
    await page.keyboard.press("Enter");
    await page.getByText("Drop adapters here").waitFor();
    await page.context().clearCookies();
    await page.goto(`${server.url}/#token=${server.token}`);
    await page.reload();
    await page.getByText("Drop adapters here").waitFor();
    assertEquals(new URL(page.url()).hash, "#/");
  }));
