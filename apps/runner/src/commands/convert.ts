import { type Conversion, convertAdapter, OUTPUT_FORMATS, type OutputFormat } from "@lora-loom/formats";
import { OUTPUT_DTYPES, type OutputDType } from "@lora-loom/merge";
import type { Command } from "../command.ts";

function conversionText({ output, from, to, dtype, modules, rank }: Conversion): string {
  return `${output}: ${modules} modules, rank ${rank}, from ${from} to ${to} (${dtype})`;
}

export const convert: Command = {
  name: "convert",
  summary: "Converts an adapter into another program's layout; no delta changes beyond the dtype's rounding.",
  usage: "IN OUT",
  arity: [2, 2],
  flags: [
    {
      name: "to",
      type: "string",
      value: "LAYOUT",
      choices: OUTPUT_FORMATS,
      help: `the layout to write: ${OUTPUT_FORMATS.join(", ")} (default: peft)`,
    },
    {
      name: "dtype",
      type: "string",
      value: "DTYPE",
      choices: OUTPUT_DTYPES,
      help: `${OUTPUT_DTYPES.join(", ")} (default: the input's)`,
    },
    { name: "base", type: "string", value: "DIR", help: "the base model's folder, which some layouts need" },
    { name: "drop", type: "list", value: "NAME", help: "leave out a kind of tensors, a module or a tensor" },
    {
      name: "expand",
      type: "boolean",
      help: "expand LoHa and LoKr into plain LoRA, which raises their rank",
    },
    { name: "force", type: "boolean", help: "replace an earlier result at the output" },
  ],
  examples: [
    [
      "deno task convert examples/tiny-llama/adapters/language merged/language-mlx --to mlx",
      "a PEFT folder for Apple MLX",
    ],
    [
      "deno task convert examples/tiny-llama/adapters/language merged/language.gguf --to gguf --base examples/tiny-llama/base",
      "for llama.cpp, which needs to know the base model",
    ],
  ],
  async run({ args, flags }, terminal) {
    const conversion = await convertAdapter(args[0]!, args[1]!, {
      to: (flags.string("to") ?? "peft") as OutputFormat,
      dtype: flags.string("dtype") as OutputDType | undefined,
      base: flags.string("base"),
      drop: flags.list("drop"),
      expand: flags.boolean("expand"),
      force: flags.boolean("force"),
      signal: terminal.signal,
    });
    for (const { message, where } of conversion.warnings) terminal.note(`warning: ${message} (${where})`);
    terminal.out(flags.boolean("json") ? JSON.stringify(conversion) : conversionText(conversion));
    return 0;
  },
};
