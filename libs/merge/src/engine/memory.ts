import { readFileSync } from "node:fs";
import process from "node:process";

/** The most resident memory that this process ever held, in bytes, as the system counts it. */
export function peakResidentBytes(): number {
  try {
    // Linux: unlike getrusage this starts anew at exec, so a large parent does not show.
    const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    if (match) return Number(match[1]) * 1024;
  } catch {
    // Other systems: below.
  }
  // Kilobytes on every system since libuv normalises them.
  return process.resourceUsage().maxRSS * 1024;
}
