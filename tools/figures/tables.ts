/** The tables and sentences of the benchmark page that are made from the results of a run. */
import { ceilingsOf } from "./ceilings.ts";
import type { Figure, Results } from "./results.ts";

/** Text of the page made from one run. */
export type Table = (results: Results) => string;

/** What may stand between two markers of the page, by the name in the first. */
export const TABLES: Readonly<Record<string, Table>> = {
  device,
  ceilings,
  products,
  movements,
  iteris,
  lego,
};

const NONE = "–";

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    line(head),
    line(head.map((_, i) => i === 0 ? "---" : "---:")),
    ...rows.map(line),
  ].join("\n");
}

/** About three significant digits, without an exponent. */
function number(value: number): string {
  if (value === 0) return "0";
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 4));
}

function percent(share: number | undefined): string {
  return share === undefined ? NONE : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** What was measured, and on what. */
function device({ device, dawn, profile, commit, torch }: Results): string {
  return `${device.name}, ${device.driver}, Dawn (npm \`webgpu\` ${dawn}), profile \`${profile}\`${
    commit ? `, commit ${commit}` : ""
  }${torch ? `; ${torch.version} on the same machine` : ""}.`;
}

/** What the shares of the ceiling are shares of. */
function ceilings(results: Results): string {
  const { speeds, source } = ceilingsOf(results);
  const factor = arithmeticUnit(results).factor;
  const name = arithmeticUnit(results).name;
  const stated = [
    ["f32", `f32 ${number((speeds.f32 ?? 0) * factor)} ${name}`],
    ["f16", `f16 on matrix units ${number((speeds.f16 ?? 0) * factor)} ${name}`],
    ["f32 in parts", "f32 on them a third of that, since it takes three products"],
    ["f32 by 16 bits", "half of it where one operand is stored in 16 bits"],
    ["memory", `memory ${number(speeds.memory ?? 0)} GB/s`],
    ["link", `the link to the host ${number(speeds.link ?? 0)} GB/s`],
  ] as const;
  const parts = stated.filter(([bound]) => speeds[bound] !== undefined).map(([, text]) => text);
  return `Ceilings (${source}): ${parts.join(", ")}.`;
}

/** Devices that are a thousand times slower get a unit that is. */
function arithmeticUnit({ device }: Results): { readonly name: string; readonly factor: number } {
  return device.class === "software" || device.class === "cpu"
    ? { name: "GFLOP/s", factor: 1000 }
    : { name: "TFLOP/s", factor: 1 };
}

function shareOfCeiling(results: Results, { speed, part, bound }: Figure): string {
  const ceiling = ceilingsOf(results).speeds[bound];
  return percent(ceiling === undefined ? undefined : speed * part / ceiling);
}

/** Milliseconds of PyTorch's counterparts of a case: in f32 and, where that was measured, in f64; in f64 alone where results are as precise. */
function peers({ torch }: Results, { name }: Figure): readonly number[] {
  const same = name.replace(/, kernel without matrix units$/, "");
  const names = [same, same.replace(" f32, ", " f64, "), same.replace(" to a float64 residual, ", " f64, ")];
  return [...new Set(names)].map((key) => torch?.milliseconds[key]).filter((ms) => ms !== undefined);
}

/** Products, Gram matrices and factorisations. */
function products(results: Results): string {
  const { torch } = results;
  const { name, factor } = arithmeticUnit(results);
  const rows = results.figures.filter(({ unit }) => unit === "TFLOP/s").map((figure) => {
    const compared = peers(results, figure);
    return [
      figure.name,
      number(figure.milliseconds),
      `${number(figure.speed * factor)}${figure.part < 1 ? " *" : ""}`,
      shareOfCeiling(results, figure),
      ...torch
        ? [
          compared.map(number).join(" / ") || NONE,
          compared.map((ms) => ratio(ms / figure.milliseconds)).join(" / ") || NONE,
        ]
        : [],
      figure.error === null ? NONE : roundoffs(figure.error),
    ];
  });
  const table = markdown(
    ["", "ms", name, "of the ceiling", ...torch ? ["PyTorch, ms", "times as fast"] : [], "error"],
    rows,
  );
  const notes = [
    ...results.figures.some(({ part }) => part < 1)
      ? [
        "\\* operations of the full product; half of them are done, and counted for the share of the ceiling.",
      ]
      : [],
    ...results.figures.some((figure) => peers(results, figure).length > 1)
      ? ["Where PyTorch has two times, they are of f32 and of f64."]
      : [],
  ];
  return [table, ...notes].join("\n\n");
}

/** An error in units of f32's roundoff; one far below it with an exponent. */
function roundoffs(error: number): string {
  return error >= 0.05 || error === 0 ? error.toFixed(1) : error.toExponential(0);
}

/** In bold where PyTorch is the slower one. */
function ratio(times: number): string {
  return times > 1 ? `**${times.toFixed(2)}**` : times.toFixed(2);
}

/** Transfers and casts. */
function movements(results: Results): string {
  return markdown(
    ["", "GB/s", "of the ceiling", "error"],
    results.figures.filter(({ unit }) => unit === "GB/s").map((figure) => [
      figure.name,
      number(figure.speed),
      shareOfCeiling(results, figure),
      figure.error === null ? NONE : figure.error === 0 ? "none" : figure.error.toFixed(1),
    ]),
  );
}

/** IterIS at the shapes of a 7B. */
function iteris({ iteris }: Results): string {
  return markdown(
    ["", "layers", "seconds", "scaled to 32 layers", "largest backward error"],
    iteris.map(({ method, layers, scale, seconds, secondsOf32Layers, backwardError }) => [
      scale === 1 ? method : `${method}, widths divided by ${scale}`,
      String(layers),
      number(seconds),
      number(secondsOf32Layers),
      backwardError === null ? NONE : backwardError.toExponential(1),
    ]),
  );
}

/** LoRA-LEGO at the shapes of a 7B. */
function lego({ lego }: Results): string {
  if (!lego) return "Not measured.";
  const { adapters, adapterRank, layers, rank, seconds, ratio_to_plain_io, distance } = lego;
  return markdown(
    [
      "",
      "seconds",
      "reading",
      "computing",
      "writing",
      "times plain reading and writing",
      "distance from float64",
    ],
    [[
      `${adapters} adapters of rank ${adapterRank} into rank ${rank}, ${layers} layers`,
      number(seconds.total),
      number(seconds.read),
      number(seconds.compute),
      number(seconds.write),
      ratio_to_plain_io.toFixed(1),
      distance === undefined ? NONE : distance.toExponential(1),
    ]],
  );
}
