/**
 * Asks Dawn for an adapter and prints what it is. A program of its own, because a broken Vulkan driver can end the
 * process that loads it.
 */
import { create } from "webgpu";

const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (adapter) console.log(adapter.info.description || adapter.info.vendor || "a GPU");
Deno.exit(adapter ? 0 : 3);
