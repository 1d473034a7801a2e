/**
 * Loads a server with 200 status requests a second and 20 event streams, first at rest and then while it merges.
 *
 *     deno run -A tests/bench/server_load.ts [--seconds 20] [--rate 200] [--streams 20] [--device auto] [--json]
 *
 * Exit status 1 when a request failed, a stream broke off, or the 99th percentile while merging is over 100 ms.
 */
import { parseArgs } from "@std/cli/parse-args";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { startServerProcess } from "../support/server_process.ts";

/** Milliseconds that the 99th percentile may take while a merge runs. */
const BOUND = 100;

const flags = parseArgs(Deno.args, { string: ["seconds", "rate", "streams", "device"], boolean: ["json"] });
const seconds = Number(flags.seconds ?? 20);
const rate = Number(flags.rate ?? 200);
const streamCount = Number(flags.streams ?? 20);

/** Latencies of one phase, in milliseconds. */
interface Latencies {
  readonly requests: number;
  readonly failures: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

function latenciesOf(times: number[], failures: number): Latencies {
  const sorted = times.toSorted((x, y) => x - y);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
  return { requests: times.length + failures, failures, p50: at(0.5), p99: at(0.99), max: at(1) };
}

/**
 * Sends requests at an even rate, whether the ones before were answered or not: a slow server meets a queue, as it does
 * in life, and its latencies count from when each request was due.
 */
async function load(urls: readonly string[], forSeconds: number): Promise<Latencies> {
  const times: number[] = [];
  let failures = 0;
  const pending: Promise<void>[] = [];
  const start = performance.now();
  for (let count = 0; count < rate * forSeconds; count++) {
    const due = start + 1000 * count / rate;
    const early = due - performance.now();
    if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
    pending.push((async () => {
      try {
        const response = await fetch(urls[count % urls.length]!);
        await response.arrayBuffer();
        if (!response.ok) throw new Error(String(response.status));
        times.push(performance.now() - due);
      } catch {
        failures++;
      }
    })());
  }
  await Promise.all(pending);
  return latenciesOf(times, failures);
}

/** Reads a merge's events to their end; gives how many there were, and whether the last one said that it is done. */
async function watch(url: string): Promise<{ events: number; isDone: boolean }> {
  const text = await (await fetch(url)).text();
  const events = text.split("\n\n").filter((block) => block.includes("\ndata: "));
  return { events: events.length, isDone: /"state":"done"/.test(events.at(-1) ?? "") };
}

async function post<T>(url: string, body: BodyInit, type?: string): Promise<T> {
  const headers: Record<string, string> = type === undefined ? {} : { "content-type": type };
  const response = await fetch(url, { method: "POST", headers, body });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return await response.json() as T;
}

async function upload(server: string, name: string): Promise<{ id: string; calibration: string }> {
  const form = new FormData();
  for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
    const bytes = await Deno.readFile(repositoryPath(`examples/tiny-llama/adapters/${name}/${file}`));
    form.append("file", new Blob([bytes]), file);
  }
  const { id } = await post<{ id: string }>(`${server}/api/adapters?name=${name}`, form);
  const text = await Deno.readFile(repositoryPath(`examples/tiny-llama/tasks/${name}.train.jsonl`));
  const calibration =
    (await post<{ id: string }>(`${server}/api/calibrations?name=${name}`, text, "text/plain")).id;
  return { id, calibration };
}

async function measure(data: string) {
  const models = repositoryPath("examples/tiny-llama");
  const server = await startServerProcess(data, ["--models", models, "--device", flags.device ?? "auto"]);
  try {
    const adapters = [await upload(server.url, "language"), await upload(server.url, "speech")];
    const startMerge = (samples: number) =>
      post<{ id: string }>(
        `${server.url}/api/merges`,
        JSON.stringify({
          method: "iteris",
          base_model: "base",
          adapters,
          parameters: { samples, agreement_prompts: 0 },
        }),
        "application/json",
      );
    const stateOf = async (id: string) =>
      (await (await fetch(`${server.url}/api/merges/${id}`)).json() as { state: string }).state;
    // Once before anything is measured: kernels are compiled, programs are warm.
    const first = await startMerge(2);
    while (await stateOf(first.id) !== "done") await new Promise((resolve) => setTimeout(resolve, 100));
    const urls = (id: string) => [`${server.url}/api/merges/${id}`, `${server.url}/api/health`];
    const rest = await load(urls(first.id), seconds);
    const merge = await startMerge(400);
    const streams = Array.from(
      { length: streamCount },
      () => watch(`${server.url}/api/merges/${merge.id}/events`),
    );
    const busy = await load(urls(merge.id), seconds);
    const wasRunning = await stateOf(merge.id) === "running";
    await fetch(`${server.url}/api/merges/${merge.id}`, { method: "DELETE" });
    const watched = await Promise.all(streams);
    return { rest, busy, wasRunning, watched };
  } finally {
    await server.stop();
  }
}

const { rest, busy, wasRunning, watched } = await withFolder((folder) => measure(`${folder}/data`));
const events = watched.map((one) => one.events);
const report = {
  rest,
  busy,
  ratio_p99: busy.p99 / rest.p99,
  merge_ran_all_the_time: wasRunning,
  streams: watched.length,
  events: { least: Math.min(...events), most: Math.max(...events) },
};
const isGood = rest.failures + busy.failures === 0 && busy.p99 <= BOUND && events.every((count) => count > 1);
if (flags.json) console.log(JSON.stringify(report));
else {
  const line = (name: string, { requests, failures, p50, p99, max }: Latencies) =>
    `${name.padEnd(14)} ${requests} requests, ${failures} failed; p50 ${p50.toFixed(1)} ms, p99 ${
      p99.toFixed(1)
    } ms, max ${max.toFixed(1)} ms`;
  console.log(line("at rest", rest));
  console.log(line("while merging", busy));
  console.log(`p99 while merging / at rest: ${report.ratio_p99.toFixed(1)}; bound: ${BOUND} ms`);
  console.log(`the merge ran all the time: ${wasRunning ? "yes" : "no, give it more to do"}`);
  console.log(`${report.streams} event streams, ${report.events.least} to ${report.events.most} events each`);
}
if (!isGood) Deno.exit(1);
