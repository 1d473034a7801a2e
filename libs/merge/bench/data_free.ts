/**
 * Time and memory of every data-free method at the shapes of Llama-2-7B (32 layers, all seven linear modules), two adapters of
 * rank 8, result of rank 8: one module of each shape is measured, the model is extrapolated. The last column is the ratio to
 * `svd` in the same run.
 *
 *     deno run -A libs/merge/bench/data_free.ts [--device cpu] [--methods svd,ties] [--rank 8] [--adapters 2]
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Device, type DeviceChoice, openDevice } from "@lora-loom/tensor";
import { METHODS, type ModuleMethod, peakResidentBytes, type WeightedFactors } from "@lora-loom/merge";
import { gaussians } from "@lora-loom/testing";

/** `[out, in]` of each kind of module and how many the model has. */
const SHAPES = [
  { name: "attention", outFeatures: 4096, inFeatures: 4096, count: 4 * 32 },
  { name: "gate, up", outFeatures: 11008, inFeatures: 4096, count: 2 * 32 },
  { name: "down", outFeatures: 4096, inFeatures: 11008, count: 32 },
] as const;

type Shape = typeof SHAPES[number];

function randomSources(device: Device, shape: Shape, adapters: number, rank: number): WeightedFactors[] {
  return Array.from({ length: adapters }, (_, t) => ({
    a: device.upload(gaussians(rank * shape.inFeatures, 2 * t + 1), [rank, shape.inFeatures]),
    b: device.upload(
      gaussians(shape.outFeatures * rank, 2 * t + 2).map((value, index) => value / (1 + index % rank)),
      [shape.outFeatures, rank],
    ),
    scale: 2,
    weight: 1,
    adapter: t,
  }));
}

/** Seconds that one module takes, its result downloaded. */
async function secondsOf(method: ModuleMethod, device: Device, shape: Shape, adapters: number, rank: number) {
  const defaults = method.parameters.flatMap(({ name, default: value }) =>
    value === undefined ? [] : [[name, value]]
  );
  const hasRank = method.parameters.some(({ name }) => name === "rank");
  const parameters = { ...Object.fromEntries(defaults), ...(hasRank ? { rank } : {}) };
  const sources = randomSources(device, shape, adapters, rank);
  await device.finish();
  const start = performance.now();
  const merged = await method.merge(sources, {
    module: "model.layers.0.self_attn.q_proj",
    device,
    parameters,
    rank: method.outputRank(sources.map(() => rank), parameters),
    seed: 42,
    modules: ["model.layers.0.self_attn.q_proj"],
    adapters,
  });
  await device.download(merged.a);
  await device.download(merged.b);
  const seconds = (performance.now() - start) / 1000;
  for (const tensor of [merged.a, merged.b, ...sources.flatMap(({ a, b }) => [a, b])]) tensor.dispose();
  return seconds;
}

function cell(value: string, width: number): string {
  return value.padStart(width);
}

const flags = parseArgs(Deno.args, {
  string: ["device", "methods", "rank", "adapters"],
  default: { device: "auto", rank: "8", adapters: "2" },
});
const [rank, adapters] = [Number(flags.rank), Number(flags.adapters)];
await using device = await openDevice({ device: flags.device as DeviceChoice });
const wanted = flags.methods?.split(",");
const methods = [...METHODS.values()].filter((method) =>
  method.kind === "module" && (wanted?.includes(method.name) ?? true)
) as ModuleMethod[];

console.log(`${device.info.name}; ${adapters} adapters of rank ${rank}; seconds a module, minutes a model`);
console.log(
  [
    "method".padEnd(22),
    ...SHAPES.map(({ name }) => cell(name, 10)),
    cell("model", 10),
    cell("peak MiB", 10),
    cell("/ svd", 8),
  ]
    .join(" "),
);
let reference: number | undefined;
for (const method of methods.sort((x, y) => Number(y.name === "svd") - Number(x.name === "svd"))) {
  let total = 0;
  const cells = [];
  for (const shape of SHAPES) {
    const seconds = await secondsOf(method, device, shape, adapters, rank);
    total += seconds * shape.count;
    cells.push(cell(seconds.toFixed(3), 10));
  }
  reference ??= method.name === "svd" ? total : undefined;
  console.log(
    [
      method.name.padEnd(22),
      ...cells,
      cell((total / 60).toFixed(2), 10),
      cell((peakResidentBytes() / 2 ** 20).toFixed(0), 10),
      cell(reference === undefined ? "" : (total / reference).toFixed(1), 8),
    ].join(" "),
  );
}
