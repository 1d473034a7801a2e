import { assertEquals, assertThrows } from "@std/assert";
import { join } from "node:path";
import { TensorError } from "../errors.ts";
import { findSoftwareDriver } from "./software_driver.ts";

function withManifest(content: string, body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(join(folder, ".cache/vulkan"), { recursive: true });
    Deno.mkdirSync(join(folder, "deep/er"), { recursive: true });
    Deno.writeTextFileSync(join(folder, ".cache/vulkan/driver.json"), content);
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("findSoftwareDriver() finds the manifest upward and makes its paths absolute", () => {
  const manifest = {
    version: 1,
    icd: "lvp.json",
    loader: "lib/libvulkan.so.1",
    libraries: ["lib/libLLVM.so.1", "/abs/libdrm.so.2"],
  };
  withManifest(JSON.stringify(manifest), (folder) => {
    const root = join(folder, ".cache/vulkan");
    assertEquals(findSoftwareDriver([join(folder, "deep/er")]), {
      manifest: join(root, "driver.json"),
      icd: join(root, "lvp.json"),
      loader: join(root, "lib/libvulkan.so.1"),
      libraries: [join(root, "lib/libLLVM.so.1"), "/abs/libdrm.so.2"],
    });
  });
});

Deno.test("findSoftwareDriver() finds nothing when no folder above has a manifest", () => {
  const folder = Deno.makeTempDirSync();
  assertEquals(findSoftwareDriver([folder]), undefined);
  Deno.removeSync(folder);
});

Deno.test("findSoftwareDriver() names the file and the fix when the manifest is wrong", () => {
  const wrong = [
    "{",
    "null",
    '{"version": 2}',
    '{"version": 1, "icd": "x"}',
    '{"version": 1, "icd": "x", "loader": "y", "libraries": [3]}',
  ];
  for (const content of wrong) {
    withManifest(content, (folder) => {
      const error = assertThrows(() => findSoftwareDriver([folder]), TensorError);
      assertEquals(error.code, "bad_driver_manifest");
      assertEquals(error.where, join(folder, ".cache/vulkan/driver.json"));
    });
  }
});
