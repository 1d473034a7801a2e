import type { Layout } from "../layout.ts";
import { readGgufAdapter } from "./read.ts";
import { createGgufAdapterWriter } from "./write.ts";

/** Adapters of llama.cpp. */
export const ggufLayout: Layout = {
  id: "gguf",
  title: "GGUF",
  container: "gguf",
  weightFiles: [],
  ownsKey: () => true,
  read: readGgufAdapter,
  writing: { weightFile: "adapter.gguf", isSingleFile: true, create: createGgufAdapterWriter },
};
