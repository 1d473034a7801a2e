/**
 * Gets the machine ready: `deno task setup [--verify] [--browser]`. Prints what it found or did; exit status 1 where
 * WebGPU would find no adapter afterwards. With `--verify` the adapter is asked for, whatever was done before; with
 * `--browser` the browser that the web page is tested in is found or fetched too.
 */
import { ROOT } from "../house/workspace.ts";
import { findAdapter } from "./adapter.ts";
import { ensureBrowser } from "./browser.ts";
import { readManifest } from "./driver.ts";
import { SetupError } from "./errors.ts";
import { driverEnvironment, driverFolder, setUp } from "./setup.ts";

async function verify(): Promise<void> {
  const folder = driverFolder(ROOT);
  const manifest = readManifest(folder);
  const adapter = await findAdapter(manifest ? driverEnvironment(folder, manifest) : {});
  if (adapter === undefined) {
    throw new SetupError(
      "driver_unusable",
      "WebGPU finds no adapter on this machine",
      "see what is missing: deno task doctor",
      folder,
    );
  }
  log(`WebGPU adapter: ${adapter}`);
}

const log = (line: string) => console.error(`set-up: ${line}`);
try {
  const { message } = await setUp(ROOT, log);
  log(message);
  if (Deno.args.includes("--verify")) await verify();
  if (Deno.args.includes("--browser")) log(`browser: ${(await ensureBrowser(ROOT, log)).path}`);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`set-up: ${error.message}\n  what to do: ${error.fix}`);
  Deno.exit(1);
}
