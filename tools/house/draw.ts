/** Draws the picture of the house anew: `deno run -A tools/house/draw.ts`. */
import { join } from "node:path";
import { HOUSE } from "./arrows.ts";
import { drawHouse, DRAWING } from "./drawing.ts";
import { ROOT } from "./workspace.ts";

await Deno.mkdir(join(ROOT, "docs"), { recursive: true });
await Deno.writeTextFile(join(ROOT, DRAWING), drawHouse(HOUSE));
