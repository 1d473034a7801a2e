import os from "node:os";
import { describeError, VERSIONS } from "@lora-loom/merge";
import { type AdapterReport, describeAdapters, gemm, type GpuReport, openDevice } from "@lora-loom/tensor";
import type { Command } from "../command.ts";
import { bytesText } from "../text.ts";

/** What each class of adapter means to a user. */
const CLASSES: Readonly<Record<AdapterReport["class"], string>> = {
  tensor: "a GPU with matrix units for 16-bit floats: the fastest there is",
  gpu: "a GPU",
  software: "a software driver: right results, computed on the CPU",
};

/** Size of the product that shows whether the device computes at all. */
const TRIAL_SIZE = 64;

/** A product computed on the device that `auto` takes. */
interface Trial {
  readonly device: string;
  readonly class: string;
  readonly ok: boolean;
  readonly message: string;
}

/** Multiplies two small matrices of whole numbers, whose product float32 holds exactly. */
async function tryDevice(): Promise<Trial> {
  try {
    await using device = await openDevice({ device: "auto" });
    const { name, class: kind } = device.info;
    const left = Float32Array.from({ length: TRIAL_SIZE ** 2 }, (_, i) => i % 7 - 3);
    const right = Float32Array.from({ length: TRIAL_SIZE ** 2 }, (_, i) => i % 5 - 2);
    const shape = [TRIAL_SIZE, TRIAL_SIZE];
    const product = await device.download(gemm(device.upload(left, shape), device.upload(right, shape)));
    const wrong = product.findIndex((value, index) => value !== expectedEntry(left, right, index));
    const message = wrong < 0
      ? "a trial product came out right"
      : `entry ${wrong} of a trial product came out wrong`;
    return { device: name, class: kind, ok: wrong < 0, message };
  } catch (error) {
    const { code, message } = describeError(error);
    return { device: "none", class: "none", ok: false, message: `${code}: ${message}` };
  }
}

function expectedEntry(left: Float32Array, right: Float32Array, index: number): number {
  const [row, column] = [Math.floor(index / TRIAL_SIZE), index % TRIAL_SIZE];
  let sum = 0;
  for (let k = 0; k < TRIAL_SIZE; k++) sum += left[row * TRIAL_SIZE + k]! * right[k * TRIAL_SIZE + column]!;
  return sum;
}

function adapterText(adapter: AdapterReport): string[] {
  const { limits, features, subgroupSizes: [least, most], matrixUnits } = adapter;
  return [
    `  ${adapter.name}`,
    `    kind          ${CLASSES[adapter.class]}`,
    `    driver        ${adapter.driver || "unknown"}`,
    `    buffers       up to ${bytesText(limits.maxBufferSize)}, ${
      bytesText(limits.maxStorageBufferBindingSize)
    } at once`,
    `    16-bit floats ${features.includes("shader-f16") ? "yes" : "no: they are widened on the way in"}`,
    `    subgroups     ${
      most === 0 ? "none" : least === most ? `${most} lanes` : `${least} to ${most} lanes`
    }`,
    `    matrix units  ${matrixUnits.length === 0 ? "none" : matrixUnits.join("; ")}`,
  ];
}

function problemText({ code, message, fix, where }: GpuReport["problems"][number]): string[] {
  return [`  ${code}: ${message}`, `    where: ${where}`, `    fix:   ${fix}`];
}

function allProblems(report: GpuReport): GpuReport["problems"] {
  return [...report.problems, ...report.adapters.flatMap(({ problems }) => problems)];
}

function verdictText(trial: Trial): string {
  if (!trial.ok) return `no device works: ${trial.message}`;
  const kind = trial.class === "cpu"
    ? "the CPU in float64, slowly: no GPU and no software driver was found"
    : trial.device;
  return `merges run on ${kind}; ${trial.message}`;
}

function reportText(report: GpuReport, trial: Trial): string {
  const problems = allProblems(report);
  const versions = Object.entries(VERSIONS).map(([name, version]) => `${name} ${version}`).join(", ");
  return [
    verdictText(trial),
    "",
    `system: ${os.type()} ${os.release()} ${os.arch()}, ${os.availableParallelism()} cores, ${
      bytesText(os.totalmem())
    } memory`,
    `versions: ${versions}`,
    "adapters:",
    ...(report.adapters.length === 0 ? ["  none"] : report.adapters.flatMap(adapterText)),
    ...(problems.length === 0
      ? ["nothing stands in the way"]
      : ["to know:", ...problems.flatMap(problemText)]),
  ].join("\n");
}

export const doctor: Command = {
  name: "doctor",
  summary: "Looks at the GPU, its driver and their pitfalls, and says what to do about each.",
  usage: "",
  arity: [0, 0],
  flags: [],
  examples: [
    ["deno task doctor", "which device merges will use, and why"],
    ["deno task doctor --json > doctor.json", "everything, to attach to a report"],
  ],
  async run({ flags }, terminal) {
    const report = await describeAdapters();
    const trial = await tryDevice();
    // The CPU always works: healthy means that a Vulkan device does.
    const ok = trial.ok && trial.class !== "cpu";
    terminal.out(
      flags.boolean("json")
        ? JSON.stringify({
          ok,
          auto: trial,
          versions: VERSIONS,
          adapters: report.adapters,
          driver_files: report.driverFiles,
          software_driver: report.softwareDriver ?? null,
          problems: allProblems(report),
        })
        : reportText(report, trial),
    );
    return ok ? 0 : 1;
  },
};
