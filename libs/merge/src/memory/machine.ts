import { readFileSync, statfsSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import process from "node:process";
import type { Device } from "@lora-loom/tensor";
import type { Machine } from "./plan_memory.ts";
import type { DeviceTraits } from "./workload.ts";

/** What this machine has to offer now: what the process holds already counts as free to it. */
export function thisMachine(): Machine {
  return {
    freeHostBytes: availableBytes() + process.memoryUsage.rss(),
    freeScratchBytes: scratchBytes(),
  };
}

/** What Linux would give without swapping, which is more than what lies idle. */
function availableBytes(): number {
  try {
    const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
    if (match) return Number(match[1]) * 1024;
  } catch {
    // Other systems: below.
  }
  return freemem();
}

function scratchBytes(): number {
  const { bavail, bsize } = statfsSync(tmpdir());
  return bavail * bsize;
}

/** What matters of an open device. */
export function deviceTraits({ info }: Device, hostSolverLimit: number): DeviceTraits {
  const onHost = info.class === "cpu" || info.class === "software";
  return {
    elementBytes: info.backend === "cpu" ? 8 : 4,
    onHost,
    packs: info.class === "tensor",
    // On the CPU everything is solved where it is.
    hostSolverLimit: info.backend === "cpu" ? 0 : hostSolverLimit,
  };
}
