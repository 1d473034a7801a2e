import { join } from "node:path";
import { sha256File } from "@lora-loom/formats";
import { unfinishedPath } from "@lora-loom/merge";
import type { ReceivedFile } from "../adapters/incoming.ts";
import { exists, removeIfThere } from "../data/durable.ts";
import { sweep } from "../data/folder.ts";
import type { MemoryPeaks } from "../work/messages.ts";
import type { MergeResult } from "./merge.ts";

/** Name of a merge's own folder for what the engine writes, complete or not at all. */
const MERGED = "merged";
/** What the engine keeps beside it of a merge that is not finished, so that it can go on. */
const UNFINISHED = unfinishedPath(MERGED);

const UNKNOWN_PEAKS: MemoryPeaks = { peak_rss_bytes: null, peak_gpu_bytes: null };

/** What merges wrote: a folder for each, with the complete result in it or nothing that counts. */
export class Results {
  constructor(private readonly folder: string, private readonly hide: (text: string) => string) {}

  /** Removes the folders of merges that are not known; of those that are, what is neither a complete result nor on the way to one. */
  async recover(known: ReadonlySet<string>): Promise<void> {
    await sweep(this.folder, known);
    for (const id of known) {
      const folder = join(this.folder, id);
      const kept = await this.isComplete(id) ? MERGED : UNFINISHED;
      if (await exists(folder)) await sweep(folder, new Set([kept]));
    }
  }

  /** The folder that the engine is to write. */
  target(id: string): string {
    return join(this.folder, id, MERGED);
  }

  /** Whether the engine completed it. */
  isComplete(id: string): Promise<boolean> {
    return exists(this.target(id));
  }

  /** What is in a complete result. */
  async read(id: string, peaks: MemoryPeaks = UNKNOWN_PEAKS): Promise<MergeResult> {
    const folder = this.target(id);
    const record = JSON.parse(await Deno.readTextFile(join(folder, "loom.json")));
    const files: ReceivedFile[] = [];
    for await (const { name, isFile } of Deno.readDir(folder)) {
      if (!isFile) continue;
      const path = join(folder, name);
      files.push({ name, bytes: (await Deno.stat(path)).size, sha256: await sha256File(path) });
    }
    files.sort((x, y) => x.name < y.name ? -1 : 1);
    const { name, backend } = record.device;
    return {
      rank: record.rank,
      modules: record.modules.length,
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
      device: { name, backend },
      seconds: record.seconds,
      peak_rss_bytes: peaks.peak_rss_bytes,
      peak_gpu_bytes: peaks.peak_gpu_bytes,
      quality: record.quality,
      warnings: record.warnings.map((warning: MergeResult["warnings"][number]) => ({
        code: warning.code,
        message: this.hide(warning.message),
        where: this.hide(warning.where),
      })),
      files,
    };
  }

  /** Removes the result of a merge that is to run, but not what an interrupted run finished of it. */
  async clear(id: string): Promise<void> {
    const folder = join(this.folder, id);
    if (await exists(folder)) await sweep(folder, new Set([UNFINISHED]));
  }

  async remove(id: string): Promise<void> {
    await removeIfThere(join(this.folder, id));
  }
}
