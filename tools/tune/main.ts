/**
 * Measures which kernels are fastest for matrix products on this machine, and keeps the winners for those who ask for them:
 *
 *     deno task tune [--device auto] [--profile safe] [--largest 4096] [--output FILE]
 *
 * Commands use them with `LORA_LOOM_TUNED=1` in the environment, programs with `openDevice({ tuned: true })`; without, a fixed table decides.
 * The file stands in the user's folder for caches and holds for this adapter, driver, profile and version of the kernels.
 */
import {
  type DeviceChoice,
  openDevice,
  type Profile,
  tuneProducts,
  tuningKey,
  tuningPath,
  usualShapes,
  writeTuning,
} from "@lora-loom/tensor";
import { parseArgs } from "@std/cli/parse-args";
import { unknownOptions } from "../unknown_options.ts";

const flags = parseArgs(Deno.args, {
  string: ["device", "profile", "largest", "output"],
  default: { device: "auto", profile: "safe" },
});
const unknown = [...unknownOptions(flags, ["device", "profile", "largest", "output"]), ...flags._];
if (unknown.length > 0) {
  console.error(
    `there is no option ${unknown.join(", ")}; there are --device, --profile, --largest and --output FILE`,
  );
  Deno.exit(2);
}
const profile = flags.profile as Profile;
await using device = await openDevice({ device: flags.device as DeviceChoice, profile, tuned: false });
const largest = Number(flags.largest ?? (device.info.class === "software" ? 1024 : 4096));
if (!Number.isInteger(largest) || largest < 32) {
  throw new Error(`--largest is ${flags.largest}; expected a whole number from 32 on`);
}
console.error(`${device.info.name}, ${device.info.driver}, profile ${profile}: products up to ${largest}`);
const choices = await tuneProducts(device, {
  shapes: usualShapes(largest),
  onProgress({ bucket, seconds, table, chosen }) {
    const gain = chosen === table
      ? ""
      : `, ${(seconds[table]! / seconds[chosen]!).toFixed(2)} times as fast as ${table}`;
    console.error(`${bucket.padEnd(20)} ${chosen}${gain}`);
  },
});
const key = tuningKey(device.info, profile);
const path = flags.output ?? tuningPath(key);
await writeTuning(path, key, choices);
console.error(`${choices.size} choices that differ from the table's are in`);
console.log(path);
