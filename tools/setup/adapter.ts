import { fileURLToPath } from "node:url";
import { tryCommand } from "./command.ts";

/**
 * The name of the WebGPU adapter that this machine offers, or nothing where there is none.
 *
 * @param env variables to try it with, for instance `VK_DRIVER_FILES`
 */
export async function findAdapter(env: Readonly<Record<string, string>> = {}): Promise<string | undefined> {
  const probe = fileURLToPath(new URL("./probe.ts", import.meta.url));
  const { success, stdout } = await tryCommand([Deno.execPath(), "run", "-A", "--no-check", probe], {
    env,
    timeout: 60_000,
  });
  return success ? stdout.trim() : undefined;
}
