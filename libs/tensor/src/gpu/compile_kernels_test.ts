import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import "../mod.ts";
import { allKernels } from "../operation.ts";
import { compileAllKernels } from "./compile_kernels.ts";
import type { Kernel } from "./kernel.ts";

Deno.test("compileAllKernels() finds nothing wrong with the kernels of this library", async () => {
  const report = await compileAllKernels();
  assertEquals(report.problems, []);
  assertGreater(report.modules, 80);
  // The largest tiles of products and blocks of triangles need more workgroup memory than the null backend has; nothing else does.
  const larger = [...allKernels().values()].flat().filter(({ requires }) =>
    (requires?.workgroupStorageBytes ?? 0) > 16384
  );
  assertEquals(report.pipelines, report.modules - new Set(larger).size);
  assert(
    larger.every(({ name }) =>
      /matrix_units|tiled_(32x|192x)?128|exact_product|_block_256$|_panel_32x256_/.test(name)
    ),
  );
});

Deno.test("compileAllKernels() names the kernel and the line when WGSL is wrong", async () => {
  const broken = (name: string, code: string): Kernel => ({
    name,
    code,
    buffers: [{ name: "x", element: "f32", access: "read" }],
    params: [["count", "u32"]],
  });
  const report = await compileAllKernels([
    broken("type_error", "@compute @workgroup_size(1) fn main() { let y: u32 = x[params.count]; }"),
    broken("writes_read_only", "@compute @workgroup_size(1) fn main() { x[0] = 1.0; }"),
    broken("no_entry_point", "fn other() {}"),
    broken("twice", "@compute @workgroup_size(1) fn main() {}"),
    broken("twice", "@compute @workgroup_size(2) fn main() {}"),
  ]);
  assertEquals(report.problems.map(({ kernel }) => kernel).sort(), [
    "no_entry_point",
    "twice",
    "type_error",
    "writes_read_only",
  ]);
  assertStringIncludes(report.problems.find(({ kernel }) => kernel === "type_error")!.message, "line");
});
