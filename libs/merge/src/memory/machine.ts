import { readFileSync, statfsSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import process from "node:process";
import { bytesPerParameter, computesOnHost } from "@lora-loom/model";
import { type Device, readsHalves } from "@lora-loom/tensor";
import type { Machine } from "./plan_memory.ts";
import type { DeviceTraits } from "./workload.ts";

/** What this machine has to offer now: what the process holds already counts as free to it. */
export function thisMachine(): Machine {
  return {
    freeHostBytes: Math.min(availableBytes(), leftInGroup()) + process.memoryUsage.rss(),
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

/** What a container's limit leaves, where there is one (control groups, version 2). */
function leftInGroup(): number {
  try {
    const [most, current] = ["max", "current"].map((name) =>
      Number(readFileSync(`/sys/fs/cgroup/memory.${name}`, "utf8"))
    );
    // Without a limit the file says "max".
    return Number.isFinite(most) ? most! - current! : Infinity;
  } catch {
    return Infinity;
  }
}

function scratchBytes(): number {
  const { bavail, bsize } = statfsSync(tmpdir());
  return bavail * bsize;
}

/** What matters of an open device. */
export function deviceTraits(device: Device, hostSolverLimit: number): DeviceTraits {
  const { info } = device;
  return {
    elementBytes: bytesPerParameter(device),
    onHost: computesOnHost(device),
    packs: readsHalves(device),
    // On the CPU everything is solved where it is.
    hostSolverLimit: info.backend === "cpu" ? 0 : hostSolverLimit,
  };
}
