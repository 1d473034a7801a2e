/** Makes the tables of the benchmark page anew from the results beside it: `deno run -A tools/figures/renew.ts`. */
import { join } from "node:path";
import { ROOT } from "../house/workspace.ts";
import { PAGE, renewFile } from "./page.ts";

const path = join(ROOT, PAGE);
await Deno.writeTextFile(path, (await renewFile(path)).after);
