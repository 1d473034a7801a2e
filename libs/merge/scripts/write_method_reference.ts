/** Writes docs/methods/README.md from the methods' declarations. */
import { methodReference, METHODS } from "@lora-loom/merge";

const target = new URL("../../../docs/methods/README.md", import.meta.url);
await Deno.mkdir(new URL(".", target), { recursive: true });
await Deno.writeTextFile(target, methodReference(METHODS.values()));
