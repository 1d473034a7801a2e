/**
 * Merges two adapters of a base model that is larger than the memory it is given, from disk to disk, with the weights streamed:
 *
 *     deno run -A tests/bench/streaming.ts [--shapes tiny|1b|3b|7b|70b] [--layers N] [--rows 50] [--tokens 256] [--method iteris]
 *         [--device auto] [--weights streamed] [--device-gib 14] [--host-gib 6] [--folder DIR] [--cold] [--check-layer]
 *
 * A Llama of random bfloat16 weights in shards, two adapters of rank 8 on all its linear modules and calibration text are written to
 * a scratch folder first; `--folder` keeps them for the next run. The merge is the public command in a process of its own. Printed are
 * its wall time and peaks beside what it predicted. `--cold` asks the system to forget the files first, which takes root.
 *
 * `--check-layer` compares: the first layer's attention output is solved on this device and in float64 on the CPU.
 */
import { existsSync } from "node:fs";
import { parseArgs } from "@std/cli/parse-args";
import { diffAdapters, type MergeSummary } from "@lora-loom/merge";
import { openTokenizer, readTask } from "@lora-loom/model";
import { repositoryPath } from "../support/paths.ts";
import { LLAMA_SHAPES, llamaModules, type LlamaShape } from "../tools/llama_shapes.ts";
import { makeAdapter } from "../tools/make_adapter.ts";
import { makeBase } from "../tools/make_base.ts";

const GIB = 2 ** 30;
const RANK = 8;
const ADAPTERS = ["language", "category"];
const EXAMPLE = repositoryPath("examples/tiny-llama");
const MAIN = repositoryPath("apps/runner/src/main.ts");

const flags = parseArgs(Deno.args, {
  string: [
    "shapes",
    "layers",
    "rows",
    "tokens",
    "method",
    "device",
    "weights",
    "device-gib",
    "host-gib",
    "folder",
  ],
  boolean: ["cold", "check-layer"],
  default: {
    shapes: "tiny",
    rows: "50",
    tokens: "256",
    method: "iteris",
    device: "auto",
    weights: "streamed",
    "device-gib": "14",
    "host-gib": "6",
  },
});

const known = LLAMA_SHAPES[flags.shapes as keyof typeof LLAMA_SHAPES];
if (!known) throw new Error(`--shapes takes ${Object.keys(LLAMA_SHAPES).join(", ")}`);
const llama: LlamaShape = { ...known, layers: Number(flags.layers ?? known.layers) };
const folder = flags.folder ?? await Deno.makeTempDir({ prefix: "loom-streaming-" });
async function measure(): Promise<void> {
  if (flags.cold) await forgetFiles();
  const sampler = new DeviceMemorySampler();
  const summary = await merge(`${folder}/base`, flags.device, "calibration", Number(flags.rows), []);
  const deviceUsed = await sampler.stop();
  const { predicted } = summary;
  const gib = (bytes: number | undefined) => bytes === undefined ? "–" : `${(bytes / GIB).toFixed(2)} GiB`;
  console.log(
    `${flags.method} on ${summary.device.name}, weights ${flags.weights}${flags.cold ? ", cold" : ""}`,
  );
  console.log(`| | measured | predicted |\n| --- | ---: | ---: |`);
  console.log(`| wall time | ${summary.seconds.total.toFixed(1)} s | |`);
  console.log(`| device memory, peak | ${gib(summary.peak_gpu_bytes)} | ${gib(predicted?.device_bytes)} |`);
  if (deviceUsed > 0) console.log(`| the same as the driver counts it | ${gib(deviceUsed)} | |`);
  console.log(`| host memory, peak | ${gib(summary.peak_rss_bytes)} | ${gib(predicted?.host_bytes)} |`);
  console.log(`| scratch on disk | | ${gib(predicted?.scratch_bytes)} |`);
  console.log(`| read | | ${gib(predicted?.read_bytes)} |`);
}

/** One module, solved here and on the CPU, from few and short samples: the CPU works in float64 and is slow. */
async function checkLayer(): Promise<void> {
  await oneLayerBase();
  const include = ["--set", 'include=["model.layers.0.self_attn.o_proj"]'];
  const base = `${folder}/base-1`;
  await merge(base, flags.device, "short", 1, include);
  await Deno.rename(`${folder}/merged`, `${folder}/merged-here`);
  await merge(base, "cpu", "short", 1, include);
  const { overall } = await diffAdapters(`${folder}/merged-here`, `${folder}/merged`);
  await Deno.remove(`${folder}/merged-here`, { recursive: true });
  console.log(`relative distance of the solution from the one in float64: ${overall.toExponential(2)}`);
  if (!(overall < 1e-2)) throw new Error("expected less than 1e-2");
}

/** The same files with a configuration that names one layer. */
async function oneLayerBase(): Promise<void> {
  const path = `${folder}/base-1`;
  if (existsSync(path)) return;
  await Deno.mkdir(path);
  for await (const { name } of Deno.readDir(`${folder}/base`)) {
    if (name !== "config.json") await Deno.symlink(`${folder}/base/${name}`, `${path}/${name}`);
  }
  const config = JSON.parse(await Deno.readTextFile(`${folder}/base/config.json`));
  await Deno.writeTextFile(`${path}/config.json`, JSON.stringify({ ...config, num_hidden_layers: 1 }));
}

async function merge(
  base: string,
  device: string,
  calibration: string,
  samples: number,
  more: readonly string[],
): Promise<MergeSummary> {
  const recipe = {
    method: flags.method,
    base_model: base,
    adapters: ADAPTERS.map((name) => ({ path: name, calibration: `${name}.${calibration}.jsonl` })),
    parameters: { samples, agreement_prompts: 0 },
    memory: {
      weights: flags.weights,
      device_gib: Number(flags["device-gib"]),
      // In float64, a layer of a 7B alone takes 6 GiB.
      host_gib: Math.max(Number(flags["host-gib"]), device === "cpu" ? 12 : 0),
    },
    output: { path: "merged" },
    device,
  };
  await Deno.writeTextFile(`${folder}/recipe.json`, JSON.stringify(recipe));
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", MAIN, "merge", `${folder}/recipe.json`, "--force", "--json", ...more],
    stdout: "piped",
    stderr: "inherit",
  });
  const { code, stdout } = await command.output();
  if (code !== 0) Deno.exit(code);
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function prepare(): Promise<void> {
  const start = performance.now();
  const base = `${folder}/base`;
  if (!existsSync(`${base}/tokenizer.json`)) {
    await makeBase(base, llama);
    for (const name of ["tokenizer_config.json", "tokenizer.json"]) {
      await Deno.copyFile(`${EXAMPLE}/base/${name}`, `${base}/${name}`);
    }
  }
  for (const [index, name] of ADAPTERS.entries()) {
    if (!existsSync(`${folder}/${name}`)) {
      await makeAdapter(`${folder}/${name}`, llamaModules(llama), RANK, index + 1);
    }
    await writeText(name, "calibration", Number(flags.rows), Number(flags.tokens));
    await writeText(name, "short", 1, 64);
  }
  console.error(`${flags.shapes}, ${llama.layers} layers: prepared in ${seconds(start)} s in ${folder}`);
}

/** Rows of text from a task's prompts, of about so many tokens each. */
async function writeText(name: string, kind: string, rows: number, tokens: number): Promise<void> {
  const tokenizer = await openTokenizer(`${EXAMPLE}/base`);
  const prompts = await readTask(`${EXAMPLE}/tasks/${name}.train.jsonl`);
  let next = 0;
  const lines = Array.from({ length: rows }, () => {
    let text = "";
    let length = 0;
    while (length < tokens) {
      for (const word of prompts[next++ % prompts.length]!.prompt.split(" ")) {
        const longer = `${text} ${word}`;
        length = tokenizer.encode(longer).length;
        if (length > tokens) break;
        text = longer;
      }
    }
    return JSON.stringify({ text: text.trim() });
  });
  await Deno.writeTextFile(`${folder}/${name}.${kind}.jsonl`, lines.join("\n"));
}

async function forgetFiles(): Promise<void> {
  await new Deno.Command("sync").output();
  await Deno.writeTextFile("/proc/sys/vm/drop_caches", "3");
}

/** The most memory that the driver says is in use on the first NVIDIA GPU, above what was before; 0 without one. */
class DeviceMemorySampler {
  #stopped = false;
  readonly #most: Promise<number>;

  constructor() {
    this.#most = this.#sample();
  }

  async stop(): Promise<number> {
    this.#stopped = true;
    return await this.#most;
  }

  async #sample(): Promise<number> {
    const before = await usedDeviceBytes();
    let most = 0;
    while (before !== undefined && !this.#stopped) {
      most = Math.max(most, (await usedDeviceBytes() ?? 0) - before);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    return most;
  }
}

async function usedDeviceBytes(): Promise<number | undefined> {
  const args = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
  try {
    const { success, stdout } = await new Deno.Command("nvidia-smi", { args }).output();
    return success ? Number(new TextDecoder().decode(stdout)) * 2 ** 20 : undefined;
  } catch {
    return undefined;
  }
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}

try {
  await prepare();
  if (flags["check-layer"]) await checkLayer();
  else await measure();
} finally {
  if (flags.folder === undefined) await Deno.remove(folder, { recursive: true });
}
