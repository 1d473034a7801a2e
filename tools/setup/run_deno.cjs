#!/usr/bin/env node
// What `deno` in node_modules/.bin is here, for the shell and for `deno task`. The package's own script dies of the first signal, while
// the command goes on and the prompt is back.
const { spawn } = require("node:child_process");
const { runInstall } = require("deno/install_api.cjs");

const command = spawn(runInstall(), process.argv.slice(2), { stdio: "inherit" });
// Ctrl-C and the closing of a terminal reach the command by themselves.
for (const signal of ["SIGINT", "SIGHUP"]) {
  process.on(signal, () => process.stdin.isTTY || command.kill(signal));
}
process.on("SIGTERM", () => command.kill("SIGTERM"));
command.on("error", ({ message }) => {
  console.error(`deno cannot be started: ${message}`);
  process.exit(1);
});
command.on("exit", (code) => process.exit(code ?? 1));
