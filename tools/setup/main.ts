/**
 * Gets the machine ready: `deno task setup [--verify]`. Prints what it found or did; exit status 1 where WebGPU would
 * find no adapter afterwards. With `--verify` the adapter is asked for, whatever was done before.
 */
import { ROOT } from "../house/workspace.ts";
import { findAdapter } from "./adapter.ts";
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
  console.error(`set-up: WebGPU adapter: ${adapter}`);
}

try {
  const { message } = await setUp(ROOT, (line) => console.error(`set-up: ${line}`));
  console.error(`set-up: ${message}`);
  if (Deno.args.includes("--verify")) await verify();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`set-up: ${error.message}\n  what to do: ${error.fix}`);
  Deno.exit(1);
}
