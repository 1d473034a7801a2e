import { type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { type BrowserProgram, ensureBrowser } from "@lora-loom/tools/setup/browser";
import { SetupError } from "@lora-loom/tools/setup/errors";
import { repositoryPath, withFolder } from "./paths.ts";

/** Nothing of the browser's own goes over the network, and no GPU is needed. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

let program: Promise<BrowserProgram> | undefined;

/**
 * The browser for tests: this machine's, else one from the distribution's packages, which is fetched once.
 *
 * @throws {Error} that says what to do where there is none
 */
function browserForTests(): Promise<BrowserProgram> {
  return program ??= ensureBrowser(repositoryPath(""), (line) => console.error(`browser: ${line}`)).catch(
    (error) => {
      if (error instanceof SetupError) error.message += `; what to do: ${error.fix}`;
      throw error;
    },
  );
}

/** A page in a browser of its own, which is told to speak to one server alone. */
export interface Visit {
  readonly page: Page;
  /** What went wrong so far: errors in the page, its console, and requests to anybody else. */
  readonly complaints: readonly string[];
}

/** Runs `body` with a fresh browser. */
export async function visit<T>(
  origin: string,
  options: BrowserContextOptions,
  body: (visit: Visit) => Promise<T>,
): Promise<T> {
  const { path, env } = await browserForTests();
  return await withFolder(async (folder) => {
    const context = await chromium.launchPersistentContext(folder, {
      executablePath: path,
      env: { ...Deno.env.toObject(), ...env },
      headless: true,
      args: ARGUMENTS,
      ...options,
    });
    try {
      const complaints: string[] = [];
      const page = context.pages()[0] ?? await context.newPage();
      page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
      page.on("console", (message) => {
        if (message.type() === "error") complaints.push(`console: ${message.text()}`);
      });
      page.on("request", (request) => {
        const url = request.url();
        if (!url.startsWith(`${origin}/`) && !/^(?:blob|data):/.test(url)) complaints.push(`request: ${url}`);
      });
      return await body({ page, complaints });
    } finally {
      await context.close();
    }
  });
}

/** Drops files and folders of this machine onto an element, as a file manager does. */
export async function dropPaths(page: Page, selector: string, paths: readonly string[]): Promise<void> {
  const session = await page.context().newCDPSession(page);
  const box = (await page.locator(selector).boundingBox())!;
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const data = { items: [], files: [...paths], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"] as const) {
    await session.send("Input.dispatchDragEvent", { type, x, y, data });
  }
}
