import { assertEquals } from "@std/assert";
import { type Device, openDevice } from "@lora-loom/tensor";
import { gaussians } from "@lora-loom/testing";
import { testOnDevices } from "../test_support/devices.ts";
import { rowExtremes } from "./row_extremes.ts";

function rounded(count: number, seed: number): Float64Array<ArrayBuffer> {
  return gaussians(count, seed).map(Math.fround);
}

async function checkLengths(device: Device): Promise<void> {
  for (const [rows, columns] of [[1, 1], [3, 2], [5, 63], [4, 64], [7, 65], [2, 1000], [200, 9]] as const) {
    const x = rounded(rows * columns, columns);
    const extremes = [...await device.download(rowExtremes(device.upload(x, [rows, columns])))];
    for (let i = 0; i < rows; i++) {
      const row = [...x.subarray(i * columns, (i + 1) * columns)].sort((p, q) => p - q);
      assertEquals([extremes[2 * i], extremes[2 * i + 1]], [row[0], row[columns - 1]]);
    }
  }
}

testOnDevices(
  "rowExtremes() finds the least and greatest entry of rows of any length",
  ({ device }) => checkLengths(device),
);

Deno.test("rowExtremes() does so with the kernels of hardware and of software drivers", async () => {
  for (const assumeClass of ["gpu", "software"] as const) {
    await using device = await openDevice({ device: "auto", assumeClass, poison: true });
    assertEquals(device.info.backend, "webgpu");
    await checkLengths(device);
  }
});

testOnDevices("rowExtremes() of rows of one sign does not invent a zero", async ({ device }) => {
  const x = Float64Array.of(3, 1, 2, -3, -1, -2);
  assertEquals([...await device.download(rowExtremes(device.upload(x, [2, 3])))], [1, 3, -3, -1]);
});
