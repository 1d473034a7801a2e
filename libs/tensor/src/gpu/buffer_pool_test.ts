import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { BufferPool, sizeClass } from "./buffer_pool.ts";

function poolOf(budgetBytes: number, keepBytes: number) {
  const created: number[] = [];
  const destroyed: number[] = [];
  const pool = new BufferPool(
    (bytes) => {
      created.push(bytes);
      return {} as GPUBuffer;
    },
    ({ bytes }) => destroyed.push(bytes),
    budgetBytes,
    () => keepBytes,
  );
  return { pool, created, destroyed };
}

Deno.test("sizeClass() wastes at most an eighth and keeps to whole 256 bytes", () => {
  for (const bytes of [0, 1, 255, 256, 257, 1000, 4096, 4097, 123_456, 2 ** 31 + 5]) {
    const size = sizeClass(bytes);
    assert(size >= bytes && size % 256 === 0);
    assertLessOrEqual(size, Math.max(bytes * 1.125 + 1, bytes + 256));
    assertEquals(sizeClass(size), size);
  }
});

Deno.test("BufferPool hands a returned buffer out again when the size fits", () => {
  const { pool, created } = poolOf(Infinity, 1 << 20);
  const first = pool.take(1000);
  pool.give(first);
  assert(pool.take(900) === first);
  assertEquals(created.length, 1);
  assertEquals([pool.usedBytes, pool.peakBytes, pool.freeBytes], [1024, 1024, 0]);
});

Deno.test("BufferPool destroys free buffers when they exceed what it may keep", () => {
  const { pool, destroyed } = poolOf(Infinity, 2048);
  const buffers = [pool.take(1024), pool.take(1024), pool.take(1024)];
  buffers.forEach((buffer) => pool.give(buffer));
  assertEquals(destroyed, [1024]);
  assertEquals(pool.freeBytes, 2048);
});

Deno.test("BufferPool keeps what it may at the present use and peak", () => {
  const destroyed: number[] = [];
  const pool = new BufferPool(
    () => ({}) as GPUBuffer,
    ({ bytes }) => destroyed.push(bytes),
    Infinity,
    (usedBytes, peakBytes) => peakBytes - usedBytes,
  );
  const [large, small] = [pool.take(2048), pool.take(1024)];
  pool.give(large);
  pool.take(512); // all together would now be more than the peak of 3072 bytes
  pool.give(small);
  assertEquals(destroyed, [2048]);
  assertEquals([pool.usedBytes, pool.peakBytes, pool.freeBytes], [512, 3072, 1024]);
});

Deno.test("BufferPool makes room within its budget before it creates a buffer", () => {
  const { pool, destroyed } = poolOf(4096, 4096);
  pool.give(pool.take(3072));
  pool.take(2048);
  assertEquals(destroyed, [3072]);
});
