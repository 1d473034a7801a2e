/**
 * Prints, as JSON, which file of a member imports which other member: the edges of Nx's graph.
 *
 *     deno run -A tools/nx-deno/print_edges.ts ROOT
 */
import { memberEdges } from "../house/edges.ts";
import { ROOT } from "../house/workspace.ts";

console.log(JSON.stringify(await memberEdges(Deno.args[0] ?? ROOT)));
