import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { assert, assertEquals } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import { randomFactors } from "../support/adapters.ts";
import { safetensorsBytes } from "../support/safetensors.ts";
import { type ServerProcess, startServerProcess } from "../support/server_process.ts";

/** What happened over all rounds. */
export interface KillReport {
  readonly kills: number;
  /** Uploads and merges that the server had said yes to. */
  readonly adapters: number;
  readonly merges: number;
  /** Requests that a kill broke off. */
  readonly broken: number;
  /** Merges that were running at a kill and had to start again. */
  readonly restarted: number;
}

interface Listed {
  readonly id: string;
  readonly state: string;
  readonly finished: string | null;
  readonly result: { readonly files: readonly { readonly name: string; readonly sha256: string }[] } | null;
  readonly files: readonly { readonly name: string; readonly sha256: string }[];
}

const MODULES = Array.from({ length: 6 }, (_, index) => ({
  name: `model.layers.${index}.self_attn.q_proj`,
  inFeatures: 96,
  outFeatures: 96,
  rank: 4,
}));
const CONFIG = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj"] };

/** Milliseconds of work after which a server is killed at the latest. */
const LONGEST_ROUND = 1500;
/** Every so many rounds the server is killed before its first answer, while it takes up what the last one left. */
const EARLY_KILLS = 4;

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function adapterForm(seed: number): FormData {
  const form = new FormData();
  form.append("file", new Blob([JSON.stringify(CONFIG)]), "adapter_config.json");
  const weights = safetensorsBytes(randomFactors(MODULES, seed)) as Uint8Array<ArrayBuffer>;
  form.append("file", new Blob([weights]), "adapter_model.safetensors");
  return form;
}

/** Everything that the server ever said yes to. */
class Promises {
  readonly adapters = new Set<string>();
  readonly merges = new Set<string>();
  /** When each merge that was seen done was done: it must not be done again. */
  readonly finished = new Map<string, string>();
  broken = 0;
  restarted = 0;
  #heard = () => {};

  keep(kind: "adapters" | "merges", id: string): void {
    this[kind].add(id);
    this.#heard();
  }

  /** Ends with the next thing that the server says yes to. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#heard = resolve);
  }
}

/** Uploads adapters and starts merges until the server is gone. */
async function work(
  server: ServerProcess,
  seed: number,
  promises: Promises,
  signal: AbortSignal,
): Promise<void> {
  for (let count = 0; !signal.aborted; count++) {
    try {
      const form = adapterForm(1000 * seed + 20 * count);
      const adapter = await fetch(`${server.url}/api/adapters`, { method: "POST", body: form });
      const { id } = await adapter.json() as Listed;
      assert(adapter.ok, `an upload was refused: ${adapter.status}`);
      promises.keep("adapters", id);
      const others = [...promises.adapters].slice(-2).map((one) => ({ id: one }));
      const merge = await fetch(`${server.url}/api/merges`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ method: "linear", adapters: others }),
      });
      const started = await merge.json() as Listed;
      assert(merge.ok, `a merge was refused: ${merge.status}`);
      promises.keep("merges", started.id);
    } catch (error) {
      if (!signal.aborted) throw error;
      promises.broken++;
    }
  }
}

async function get<T>(server: ServerProcess, path: string): Promise<T> {
  const response = await fetch(`${server.url}${path}`);
  assertEquals(response.status, 200, path);
  return await response.json() as T;
}

/** Nothing that was promised is lost, nothing half is seen, and what was done stays done. */
async function checkPromises(server: ServerProcess, data: string, promises: Promises): Promise<void> {
  assertEquals([...Deno.readDirSync(`${data}/incoming`)], [], "half uploads are gone");
  const adapters = await get<Listed[]>(server, "/api/adapters");
  const known = new Set(adapters.map(({ id }) => id));
  for (const id of promises.adapters) assert(known.has(id), `the adapter ${id} is lost`);
  assertEquals([...Deno.readDirSync(`${data}/adapters`)].map(({ name }) => name).sort(), [...known].sort());
  for (const { id, files } of adapters) {
    for (const file of files) {
      assertEquals(sha256(await Deno.readFile(`${data}/adapters/${id}/${file.name}`)), file.sha256);
    }
  }
  for (const id of promises.merges) {
    const { state, finished, result } = await get<Listed>(server, `/api/merges/${id}`);
    assert(["queued", "running", "done"].includes(state), `the merge ${id} is ${state}`);
    const before = promises.finished.get(id);
    if (before !== undefined) assertEquals([state, finished], ["done", before], "a merge ran twice");
    if (state !== "done") continue;
    promises.finished.set(id, finished!);
    for (const file of result!.files) {
      const response = await fetch(`${server.url}/api/merges/${id}/files/${file.name}`);
      assertEquals(sha256(new Uint8Array(await response.arrayBuffer())), file.sha256);
    }
  }
}

/** Looks at what a killed server left, as the next one will find it. */
function checkDatabase(data: string, promises: Promises): void {
  using database = new DatabaseSync(`${data}/loom.sqlite`);
  assertEquals({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
  const { count } = database.prepare("SELECT count(*) AS count FROM merges WHERE state = 'running'")
    .get() as {
      count: number;
    };
  promises.restarted += count;
}

/**
 * Kills a server with SIGKILL at random moments while it takes uploads and merges, and checks after each kill that
 * nothing it had said yes to is lost, nothing half is seen, nothing runs twice and the database is whole. At the end all
 * merges are done.
 */
export async function killRounds(data: string, rounds: number, seed: number): Promise<KillReport> {
  const random = seeded(seed);
  const promises = new Promises();
  const start = () =>
    startServerProcess(data, [
      "--device",
      "cpu",
      "--limit",
      "interruptions=1000000",
      "--limit",
      "queue=100000",
    ]);
  for (let round = 0; round < rounds; round++) {
    const server = await start();
    if (round > 0) await checkPromises(server, data, promises);
    const over = new AbortController();
    const working = work(server, seed + round, promises, over.signal);
    if (round % EARLY_KILLS !== EARLY_KILLS - 1) await promises.next();
    await pause(LONGEST_ROUND * random());
    over.abort();
    await server.kill();
    await working;
    checkDatabase(data, promises);
  }
  const server = await start();
  const isDone = async (id: string) => (await get<Listed>(server, `/api/merges/${id}`)).state === "done";
  for (const id of promises.merges) while (!await isDone(id)) await pause(20);
  await checkPromises(server, data, promises);
  assertEquals(await server.stop(), 0);
  const { adapters, merges, broken, restarted } = promises;
  return { kills: rounds, adapters: adapters.size, merges: merges.size, broken, restarted };
}
