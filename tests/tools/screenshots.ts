/**
 * Takes the pictures of the web page that the documents show: `deno run -A tests/tools/screenshots.ts [FOLDER]`, into
 * `docs/screenshots` unless told otherwise.
 */
import type { Page } from "playwright-core";
import { startServer } from "@lora-loom/server";
import { browserForTests, dropPaths, visit } from "../support/browser.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const NAMES = ["language", "category", "speech"];
const folder = Deno.args[0] ?? repositoryPath("docs/screenshots");

async function shoot(page: Page, name: string, fullPage = false): Promise<void> {
  // Sparks and fonts settle.
  await page.waitForTimeout(400);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage, animations: "disabled" });
}

async function takeAll(page: Page): Promise<void> {
  await page.locator("h1").waitFor();
  await shoot(page, "empty");
  await dropPaths(page, ".drop", NAMES.map((name) => `${EXAMPLE}/adapters/${name}`));
  for (const name of NAMES) await page.getByRole("slider", { name: `Weight of ${name}` }).waitFor();
  await page.locator(".spark").nth(NAMES.length - 1).waitFor();
  await page.getByLabel("Weight of speech as a number").fill("0.6");
  await page.getByLabel("rank", { exact: true }).fill("12");
  await page.evaluate("document.activeElement.blur(), scrollTo(0, 0)");
  await shoot(page, "compose");
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(page, "compose-dark");
  await page.setViewportSize({ width: 390, height: 844 });
  await shoot(page, "compose-phone");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.getByRole("button", { name: "Start the merge" }).click();
  await page.getByText(/^Module \d+ of/).waitFor();
  await shoot(page, "running");
  await page.getByRole("link", { name: "Download as zip" }).waitFor();
  await shoot(page, "result");
  await page.locator("iframe").scrollIntoViewIfNeeded();
  await page.frameLocator("iframe").getByText("cosine to the sum").waitFor();
  await shoot(page, "report");
  await page.getByRole("link", { name: "History" }).click();
  await page.getByRole("heading", { name: "Merges" }).waitFor();
  await shoot(page, "history");
}

const program = await browserForTests();
if (!program) Deno.exit(1);
await Deno.mkdir(folder, { recursive: true });
await withFolder(async (data) => {
  const server = await startServer({ data, port: 0, models: EXAMPLE });
  try {
    await visit(
      program,
      server.url,
      { viewport: { width: 1200, height: 900 }, colorScheme: "light" },
      async ({ page }) => {
        await page.goto(server.url);
        await takeAll(page);
      },
    );
  } finally {
    await server.stop();
  }
});
