/**
 * Gets the machine ready: `deno task setup`. Prints what it found or did; exit status 1 where WebGPU would find no
 * adapter afterwards.
 */
import { ROOT } from "../house/workspace.ts";
import { SetupError } from "./errors.ts";
import { setUp } from "./setup.ts";

try {
  const { message } = await setUp(ROOT, (line) => console.error(`set-up: ${line}`));
  console.error(`set-up: ${message}`);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`set-up: ${error.message}\n  what to do: ${error.fix}`);
  Deno.exit(1);
}
