/**
 * Kills a server with SIGKILL at random moments during uploads and merges, 50 times, and checks after each that nothing is lost.
 *
 *     deno run -A tests/bench/server_kill.ts [--rounds 50] [--seed 1]
 */
import { parseArgs } from "@std/cli/parse-args";
import { killRounds } from "../server/kill_rounds.ts";
import { withFolder } from "../support/paths.ts";

const flags = parseArgs(Deno.args, { string: ["rounds", "seed"] });
const start = performance.now();
const report = await withFolder((folder) =>
  killRounds(`${folder}/data`, Number(flags.rounds ?? 50), Number(flags.seed ?? 1))
);
console.log(`${report.kills} kills in ${((performance.now() - start) / 1000).toFixed(0)} s`);
console.log(`adapters that were promised and kept   ${report.adapters}`);
console.log(
  `merges that were promised and done     ${report.merges}, of which started again after a kill: ${report.restarted}`,
);
console.log(`requests that a kill broke off         ${report.broken}`);
