/**
 * Takes pictures of every state of the web page, in light, in dark and on a phone:
 *
 *     deno run -A tests/tools/screenshots.ts [FOLDER] [--format webp] [--only STATE]
 *
 * They go to `docs/screenshots`, which the documents show, unless told otherwise.
 */
import { parseArgs } from "@std/cli/parse-args";
import { Buffer } from "node:buffer";
import type { Page } from "playwright-core";
import { startServer } from "@lora-loom/server";
import { dropPaths, visit } from "../support/browser.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const NAMES = ["language", "category", "speech"];
const LOOKS = [
  { name: "light", colorScheme: "light", width: 1200, height: 900 },
  { name: "dark", colorScheme: "dark", width: 1200, height: 900 },
  { name: "phone", colorScheme: "light", width: 390, height: 844 },
] as const;

const flags = parseArgs(Deno.args, { string: ["_", "format", "only"], default: { format: "webp" } });
const folder = String(flags._[0] ?? repositoryPath("docs/screenshots"));

/** Takes the page as it is in every look; the element that `target` finds, a script, is brought to the top. */
async function shoot(page: Page, state: string, target?: string): Promise<void> {
  if (flags.only && flags.only !== state) return;
  await page.mouse.move(0, 0);
  for (const { name, colorScheme, width, height } of LOOKS) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height });
    await page.evaluate("document.activeElement?.blur()");
    await page.evaluate(
      target
        ? `${target}.scrollIntoView({ behavior: "instant" })`
        : `scrollTo({ top: 0, behavior: "instant" })`,
    );
    // The layout settles.
    await page.waitForTimeout(150);
    await Deno.writeFile(`${folder}/${state}-${name}.${flags.format}`, await picture(page));
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize({ width: 1200, height: 900 });
}

const one = (selector: string) => `document.querySelector(${JSON.stringify(selector)})`;

/** Playwright itself knows no WebP, which takes a third of a PNG's bytes. */
async function picture(page: Page): Promise<Uint8Array> {
  const session = await page.context().newCDPSession(page);
  const format = flags.format as "webp" | "png";
  const quality = format === "webp" ? { quality: 82 } : {};
  const { data } = await session.send("Page.captureScreenshot", { format, ...quality });
  await session.detach();
  return Buffer.from(data, "base64");
}

async function takeCompose(page: Page, broken: string): Promise<void> {
  await page.locator("h1").waitFor();
  await shoot(page, "empty");
  await page.getByRole("link", { name: "History" }).click();
  await page.getByText("No merge yet").waitFor();
  await shoot(page, "history-empty");
  await page.getByRole("link", { name: "Merge", exact: true }).click();
  await dropPaths(page, ".drop", [broken]);
  await page.getByText("broken was refused").waitFor();
  await shoot(page, "refused");
  await page.getByRole("button", { name: "Dismiss" }).click();
  await dropPaths(page, ".drop", NAMES.map((name) => `${EXAMPLE}/adapters/${name}`));
  for (const name of NAMES) await page.getByRole("slider", { name: `Weight of ${name}` }).waitFor();
  await page.locator(".spark").nth(NAMES.length - 1).waitFor();
  await page.getByLabel("Weight of speech as a number").fill("0.6");
  await page.getByLabel("rank", { exact: true }).fill("12");
  await shoot(page, "adapters");
  await page.getByRole("button", { name: "Details of language" }).click();
  await page.getByText("‖ΔW‖ =").waitFor();
  await shoot(page, "details");
  await page.getByRole("button", { name: "Details of language" }).click();
  await page.locator("summary").filter({ hasText: "More parameters" }).click();
  await shoot(page, "method", one("#step-method"));
  await page.getByRole("radio", { name: "iteris", exact: true }).check();
  const prompts = NAMES.map((name) => `${EXAMPLE}/tasks/${name}.train.jsonl`);
  await page.locator("#pick-calibration").setInputFiles(prompts);
  await page.getByText("speech.train.jsonl").first().waitFor({ state: "attached" });
  await page.getByLabel("samples", { exact: true }).fill("6");
  await shoot(page, "calibration", one("#about-method"));
}

async function takeMerges(page: Page): Promise<void> {
  const start = page.getByRole("button", { name: "Start the merge", disabled: false });
  const back = () => page.getByRole("link", { name: "Merge", exact: true }).click();
  await start.click();
  await page.locator("progress").waitFor();
  await page.getByText("left of this").waitFor();
  await shoot(page, "running");
  const running = page.url();
  await back();
  await page.getByRole("radio", { name: "lego", exact: true }).check();
  await start.click();
  await page.getByText("before this one").waitFor();
  await shoot(page, "waiting");
  const waiting = page.url();
  await page.goto(running);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("This merge was cancelled").waitFor();
  await shoot(page, "cancelled");
  await page.goto(waiting);
  await page.getByRole("link", { name: "Download as zip" }).waitFor();
  await shoot(page, "result");
  await page.frameLocator("iframe").getByText("cosine to the sum").waitFor();
  await shoot(page, "report", `${one("iframe")}.contentDocument.querySelector("figure")`);
  await page.locator("summary").filter({ hasText: "another program" }).click();
  await shoot(page, "layouts", one("#files"));
  await page.getByRole("link", { name: "History" }).click();
  await page.getByRole("heading", { name: "Merges" }).waitFor();
  await shoot(page, "history");
}

/** A folder that looks like an adapter and is none. */
async function makeBroken(parent: string): Promise<string> {
  const broken = `${parent}/broken`;
  await Deno.mkdir(broken);
  await Deno.copyFile(`${EXAMPLE}/adapters/language/adapter_config.json`, `${broken}/adapter_config.json`);
  await Deno.writeTextFile(`${broken}/adapter_model.safetensors`, "this is no safetensors file");
  return broken;
}

await Deno.mkdir(folder, { recursive: true });
await withFolder(async (scratch) => {
  for (const requireToken of [true, false]) {
    const server = await startServer({ data: `${scratch}/data`, port: 0, models: EXAMPLE, requireToken });
    try {
      await visit(server.url, {}, async ({ page }) => {
        await page.goto(server.url);
        if (requireToken) {
          await page.getByText("This server asks for a token").waitFor();
          await shoot(page, "token");
        } else {
          await takeCompose(page, await makeBroken(scratch));
          await takeMerges(page);
        }
      });
    } finally {
      await server.stop();
    }
  }
});
