/** Adds to `package-lock.json` what npm left out: `deno run -A tools/packages/complete_lock.ts`. */
import { join } from "node:path";
import { ROOT } from "../house/workspace.ts";
import { completeLock, type LockFile } from "./lock.ts";

const path = join(ROOT, "package-lock.json");
const lock = JSON.parse(await Deno.readTextFile(path)) as LockFile;
await Deno.writeTextFile(path, JSON.stringify(completeLock(lock), null, 2) + "\n");
