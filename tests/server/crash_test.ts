import { assert, assertEquals } from "@std/assert";
import { withFolder } from "../support/paths.ts";
import { startServerProcess } from "../support/server_process.ts";
import { killRounds } from "./kill_rounds.ts";

Deno.test("a server that is killed at any moment loses nothing and shows nothing half", () =>
  withFolder(async (folder) => {
    const report = await killRounds(`${folder}/data`, 5, 11);
    console.log(`      ${JSON.stringify(report)}`);
    assert(report.adapters > 0 && report.merges > 0, "the server had work");
  }));

Deno.test("a server ends with status 0 when it is asked to, and leaves its data folder to the next", () =>
  withFolder(async (folder) => {
    for (let count = 0; count < 2; count++) {
      const server = await startServerProcess(`${folder}/data`, ["--device", "cpu"]);
      const response = await fetch(`${server.url}/api/health`);
      assertEquals(response.status, 200);
      await response.body?.cancel();
      assertEquals(await server.stop(), 0);
    }
  }));
