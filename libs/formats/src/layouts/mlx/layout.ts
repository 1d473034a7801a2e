import type { Layout } from "../layout.ts";
import { readMlx } from "./read.ts";
import { createMlxWriter, WEIGHTS } from "./write.ts";

/** Apple MLX (mlx-lm): `adapters.safetensors` beside `adapter_config.json`, factors transposed, one scale. */
export const mlxLayout: Layout = {
  id: "mlx",
  title: "MLX",
  container: "safetensors",
  weightFiles: ["adapters"],
  ownsKey: (key) => key.endsWith(".lora_a") || key.endsWith(".lora_b"),
  configSign: (config) => config.has("lora_parameters") ? "lora_parameters" : undefined,
  read: readMlx,
  writing: { weightFile: WEIGHTS, isSingleFile: false, create: createMlxWriter },
};
