// Runs after `npm install` under plain Node: hands over to the set-up, which is TypeScript for Deno. Whatever happens,
// the installation itself succeeds; `npm test` and `npm run setup` say what is missing.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const deno = fileURLToPath(new URL("../../node_modules/deno/bin.cjs", import.meta.url));

if (process.env.LORA_LOOM_SKIP_SETUP !== "1" && existsSync(deno)) {
  const { status } = spawnSync(process.execPath, [deno, "run", "-A", "--no-check", "tools/setup/main.ts"], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    timeout: 15 * 60 * 1000,
  });
  if (status !== 0) {
    console.error("set-up: not finished; everything else is installed. Try again: npm run setup");
  }
}
