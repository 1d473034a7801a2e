// Runs after `npm install` under plain Node. Whatever happens, the installation itself succeeds; `npm test` and
// `npm run setup` say what is missing.
import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, symlinkSync, unlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = (fromRoot) => fileURLToPath(new URL(`../../${fromRoot}`, import.meta.url));
const deno = path("node_modules/deno/bin.cjs");

/**
 * The `deno` package points its command at the native program, but `deno task` runs every command it finds in
 * `node_modules/.bin` as JavaScript; `run_deno.cjs` suits both it and the shell.
 */
function linkDenoScript() {
  const link = path("node_modules/.bin/deno");
  if (process.platform === "win32" || !lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink()) return;
  unlinkSync(link);
  symlinkSync("../../tools/setup/run_deno.cjs", link);
}

/** The set-up is TypeScript for Deno. */
function setUp() {
  const args = [deno, "run", "-A", "--no-check", "tools/setup/main.ts"];
  const { status } = spawnSync(process.execPath, args, {
    cwd: path("."),
    stdio: ["ignore", "inherit", "inherit"],
    timeout: 15 * 60 * 1000,
  });
  if (status !== 0) {
    console.error("set-up: not finished; everything else is installed. Try again: npm run setup");
  }
}

if (existsSync(deno)) {
  try {
    linkDenoScript();
  } catch (error) {
    console.error(
      `set-up: node_modules/.bin/deno was left as it is (${error.message}); use \`npx deno run\``,
    );
  }
  if (process.env.LORA_LOOM_SKIP_SETUP !== "1") setUp();
}
