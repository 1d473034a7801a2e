/** Reads every factor of an adapter, one module after the other, and prints the process's peak memory in bytes. */
import { openAdapter } from "@lora-loom/formats";
import process from "node:process";

using adapter = await openAdapter(process.argv[2]!);
let values = 0;
for (const { a, b } of adapter.modules.values()) {
  values += (await a.readFloat32()).length + (await b.readFloat32()).length;
}
console.log(JSON.stringify({ values, peak: process.resourceUsage().maxRSS * 1024 }));
