import { diffAdapters, type Distances } from "@lora-loom/merge";
import type { Command } from "../command.ts";
import { short, table } from "../text.ts";

/** How many modules the text form lists. */
const LISTED = 10;

function distancesText(distances: Distances): string {
  const rows = Object.entries(distances.modules).sort(([, x], [, y]) => y - x);
  const more = rows.length > LISTED
    ? [`… and ${rows.length - LISTED} modules that differ less (all of them: --json)`]
    : [];
  const only = (side: string, names: readonly string[]) =>
    names.length === 0 ? [] : [`only in ${side}, so zero in the other: ${names.join(", ")}`];
  return [
    `relative distance ‖ΔA − ΔB‖ / ‖ΔB‖: ${short(distances.overall)} overall, at most ${
      short(distances.worst.distance)
    }`,
    "",
    table(["module", "distance"], rows.slice(0, LISTED).map(([name, distance]) => [name, short(distance)])),
    ...more,
    ...only("A", distances.onlyInA),
    ...only("B", distances.onlyInB),
  ].join("\n");
}

export const diff: Command = {
  name: "diff",
  summary: "Measures how far apart the deltas of two adapters are, per module and overall.",
  usage: "A B",
  arity: [2, 2],
  flags: [],
  examples: [
    [
      "deno task diff merged/k8 examples/quickstart/merged",
      "compare two merges; ranks and scales may differ",
    ],
    [
      "deno task diff examples/tiny-llama/adapters/language examples/tiny-llama/adapters/speech --json",
      "every module, as JSON",
    ],
  ],
  async run({ args, flags }, terminal) {
    const distances = await diffAdapters(args[0]!, args[1]!);
    const { overall, worst, modules } = distances;
    terminal.out(
      flags.boolean("json")
        ? JSON.stringify({
          overall,
          worst,
          modules,
          only_in_a: distances.onlyInA,
          only_in_b: distances.onlyInB,
        })
        : distancesText(distances),
    );
    return 0;
  },
};
