/**
 * Merges five random adapters of Llama-2-7B's shapes (rank 64, all linear modules) with LoRA-LEGO and puts the time beside
 * what bounds it: reading and writing the same bytes, and plain k-means on the raw vectors.
 *
 *     deno run -A tests/bench/lego_7b.ts [--layers 32] [--adapters 5] [--rank 64] [--k 128] [--method lego]
 *         [--device auto] [--folder DIR] [--no-kmeans] [--float64] [--json FILE]
 *
 * `--float64` merges once more on the CPU and says how far the two results are apart. The adapters (1.6 GB at 32 layers) are made in DIR unless they are there, and kept; the merged one is removed.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { openAdapter } from "@lora-loom/formats";
import {
  diffAdapters,
  type MergeSummary,
  peakResidentBytes,
  recipeFromObject,
  runMerge,
} from "@lora-loom/merge";
import { seeded } from "@lora-loom/testing";
import { makeAdapters } from "../tools/make_adapter.ts";
import { kMeans, type Points } from "./kmeans.ts";

const RESTARTS = 10;
const CHUNK_BYTES = 8 << 20;
/** What a merge may hold beyond the largest module's own needs. */
const ALLOWED_BEYOND_LARGEST = 2 ** 30;

interface Flags {
  readonly layers: number;
  readonly adapters: number;
  readonly rank: number;
  readonly k: number;
  readonly method: string;
  readonly device: string;
  readonly folder: string;
  readonly kmeans: boolean;
  readonly float64: boolean;
  readonly json: string | undefined;
}

function readFlags(): Flags {
  const flags = parseArgs(Deno.args, {
    string: ["layers", "adapters", "rank", "k", "method", "device", "folder", "json"],
    boolean: ["kmeans", "float64"],
    negatable: ["kmeans"],
    default: { layers: "32", adapters: "5", rank: "64", method: "lego", device: "auto", kmeans: true },
  });
  const rank = Number(flags.rank);
  const layers = Number(flags.layers);
  return {
    layers,
    rank,
    adapters: Number(flags.adapters),
    k: Number(flags.k ?? 2 * rank),
    method: flags.method,
    device: flags.device,
    folder: flags.folder ?? join(tmpdir(), `lora-loom-7b-r${rank}-l${layers}`),
    kmeans: flags.kmeans === true,
    float64: flags.float64 === true,
    json: flags.json,
  };
}

async function seconds(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await body();
  return (performance.now() - start) / 1000;
}

/** Reads a file in pieces and forgets it; returns its size. */
async function readThrough(path: string): Promise<number> {
  using file = await Deno.open(path);
  const buffer = new Uint8Array(CHUNK_BYTES);
  let bytes = 0;
  for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) bytes += count;
  return bytes;
}

/** Writes as many bytes as the merged adapter has, and waits for the disk as a merge does. */
async function writeThrough(path: string, bytes: number): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  const chunk = crypto.getRandomValues(new Uint8Array(1 << 16));
  const buffer = new Uint8Array(CHUNK_BYTES);
  for (let start = 0; start < buffer.length; start += chunk.length) buffer.set(chunk, start);
  for (let written = 0; written < bytes;) {
    written += await file.write(buffer.subarray(0, Math.min(buffer.length, bytes - written)));
  }
  await file.sync();
}

/** All units [s · b; a] of one module in float32: what k-means on raw vectors works on. */
async function rawUnits(paths: readonly string[], module: string): Promise<Points> {
  const parts: {
    a: Float32Array;
    b: Float32Array;
    rank: number;
    scale: number;
    inFeatures: number;
    outFeatures: number;
  }[] = [];
  for (const path of paths) {
    using adapter = await openAdapter(path);
    const { a, b, rank, scale, inFeatures, outFeatures } = adapter.modules.get(module)!;
    parts.push({ a: await a.readFloat32(), b: await b.readFloat32(), rank, scale, inFeatures, outFeatures });
  }
  const { inFeatures, outFeatures } = parts[0]!;
  const dimensions = inFeatures + outFeatures;
  const count = parts.reduce((sum, { rank }) => sum + rank, 0);
  const values = new Float32Array(count * dimensions);
  let unit = 0;
  for (const { a, b, rank, scale } of parts) {
    for (let r = 0; r < rank; r++, unit++) {
      values.set(a.subarray(r * inFeatures, (r + 1) * inFeatures), unit * dimensions);
      for (let o = 0; o < outFeatures; o++) {
        values[unit * dimensions + inFeatures + o] = scale * b[o * rank + r]!;
      }
    }
  }
  return { values, count, dimensions };
}

/** Part of the model's clustering work that one module is: distances cost in proportion to the dimensions. */
async function shareOf(path: string, module: string): Promise<number> {
  using adapter = await openAdapter(path);
  const size = (name: string) =>
    adapter.modules.get(name)!.inFeatures + adapter.modules.get(name)!.outFeatures;
  const total = [...adapter.modules.keys()].reduce((sum, name) => sum + size(name), 0);
  return size(module) / total;
}

async function largestModule(path: string): Promise<{ bytes: (pooled: number, k: number) => number }> {
  using adapter = await openAdapter(path);
  const widths = [...adapter.modules.values()].map(({ inFeatures, outFeatures }) => inFeatures + outFeatures);
  const width = Math.max(...widths);
  // Two modules' files (one is read ahead) in float16, the factors in float32 twice (as stored and stacked), the result.
  return { bytes: (pooled, k) => width * (2 * 2 * pooled + 2 * 4 * pooled + 2 * 4 * k) };
}

async function main(): Promise<void> {
  const flags = readFlags();
  const paths = await makeAdapters(flags.folder, {
    count: flags.adapters,
    rank: flags.rank,
    layers: flags.layers,
  });
  const scratch = await mkdtemp(join(flags.folder, "bench-"));
  try {
    const residentBefore = peakResidentBytes();
    const recipe = (name: string, device: string) =>
      recipeFromObject({
        method: flags.method,
        adapters: paths.map((path) => ({ path })),
        parameters: { rank: flags.k },
        output: { path: join(scratch, name), dtype: "float16" },
        device,
      }, scratch);
    // Once through the files first, so that the merge and the bare reading find them alike in the system's cache.
    for (const path of paths) await readThrough(join(path, "adapter_model.safetensors"));
    const summary = await runMerge(recipe("merged", flags.device));
    let inputBytes = 0;
    const reading = await seconds(async () => {
      for (const path of paths) inputBytes += await readThrough(join(path, "adapter_model.safetensors"));
    });
    const outputBytes = (await Deno.stat(join(summary.output, "adapter_model.safetensors"))).size;
    const writing = await seconds(() => writeThrough(join(scratch, "same-size"), outputBytes));
    const largest = (await largestModule(paths[0]!)).bytes(flags.adapters * flags.rank, flags.k);
    const figures = {
      ...resultOf(summary, reading, writing, inputBytes, outputBytes, largest, residentBefore),
    };
    const kmeans = flags.kmeans ? await kMeansTimes(flags, paths, summary) : undefined;
    const distance = flags.float64
      ? (await diffAdapters(summary.output, (await runMerge(recipe("float64", "cpu"))).output)).overall
      : undefined;
    print(flags, figures, kmeans);
    if (distance !== undefined) console.log(`  distance from float64         ${distance.toExponential(1)}`);
    if (flags.json) {
      const { layers, adapters, rank, method } = flags;
      const lego = { ...figures, method, layers, adapters, adapterRank: rank, kmeans, distance };
      await Deno.writeTextFile(flags.json, JSON.stringify({ lego }, null, 2));
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function resultOf(
  summary: MergeSummary,
  reading: number,
  writing: number,
  inputBytes: number,
  outputBytes: number,
  largestBytes: number,
  residentBefore: number,
) {
  return {
    device: summary.device,
    modules: summary.modules,
    rank: summary.rank,
    seconds: summary.seconds,
    plain_read_seconds: reading,
    plain_write_seconds: writing,
    ratio_to_plain_io: summary.seconds.total / (reading + writing),
    input_bytes: inputBytes,
    output_bytes: outputBytes,
    largest_module_bytes: largestBytes,
    peak_rss_bytes: summary.peak_rss_bytes,
    peak_gpu_bytes: summary.peak_gpu_bytes,
    rss_beyond_start_bytes: summary.peak_rss_bytes - residentBefore,
    within_memory_bound: summary.peak_rss_bytes - residentBefore - largestBytes < ALLOWED_BEYOND_LARGEST &&
      summary.peak_gpu_bytes - largestBytes < ALLOWED_BEYOND_LARGEST,
    quality: summary.quality,
  };
}

/** Plain k-means of one attention module, timed, and what the whole model would take at that pace. */
async function kMeansTimes(flags: Flags, paths: readonly string[], summary: MergeSummary) {
  const module = "model.layers.0.self_attn.q_proj";
  const points = await rawUnits(paths, module);
  const start = performance.now();
  const { iterations, inertia } = kMeans(points, flags.k, RESTARTS, seeded(42));
  const one = (performance.now() - start) / 1000;
  const all = one / await shareOf(paths[0]!, module);
  return {
    module,
    restarts: RESTARTS,
    iterations,
    inertia,
    seconds: one,
    extrapolated_seconds: all,
    ratio: all / summary.seconds.total,
  };
}

function print(
  flags: Flags,
  figures: ReturnType<typeof resultOf>,
  kmeans: Awaited<ReturnType<typeof kMeansTimes>> | undefined,
): void {
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const s = (value: number) => `${value.toFixed(2)} s`;
  const { seconds: times } = figures;
  const lines = [
    `${flags.adapters} adapters of rank ${flags.rank}, ${figures.modules} modules, ${flags.method} to rank ${figures.rank} on ${figures.device.name}`,
    `  merge                         ${s(times.total)}  (read ${s(times.read)}, compute ${
      s(times.compute)
    }, write ${s(times.write)})`,
    `  only reading ${gigabytes(figures.input_bytes)}          ${s(figures.plain_read_seconds)}`,
    `  only writing ${gigabytes(figures.output_bytes)}          ${s(figures.plain_write_seconds)}`,
    `  merge / (read + write)        ${figures.ratio_to_plain_io.toFixed(2)}`,
    `  largest module's needs        ${gigabytes(figures.largest_module_bytes)}`,
    `  memory: resident peak         ${gigabytes(figures.peak_rss_bytes)} (${
      gigabytes(figures.rss_beyond_start_bytes)
    } more than before)`,
    `  memory: device buffers        ${gigabytes(figures.peak_gpu_bytes)}`,
    `  within largest module + 1 GiB ${figures.within_memory_bound ? "yes" : "NO"}`,
  ];
  if (kmeans) {
    lines.push(
      `  plain k-means, ${kmeans.module}: ${
        s(kmeans.seconds)
      } for ${RESTARTS} starts (${kmeans.iterations} iterations)`,
      `  extrapolated to all modules   ${s(kmeans.extrapolated_seconds)}, ${
        kmeans.ratio.toFixed(1)
      } times the whole merge`,
    );
  }
  console.log(lines.join("\n"));
}

if (import.meta.main) await main();
