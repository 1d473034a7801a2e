import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { denseResult, mergeToy, type Method } from "./test_support/merge_toy.ts";
import {
  combine,
  expertTraces,
  type Matrix,
  systemOf,
  times,
  transpose,
  zeros,
} from "./test_support/oracle.ts";
import { SMALL, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights({ ...SMALL, layers: 1 }, 5);
const tasks = [1, 2, 3].map((seed) => toyTask(toy, { name: `task ${seed}`, rank: 2, samples: 15, seed }));
/** Modules of the first stage: their inputs do not depend on any solution, so results of different ranks compare. */
const FIRST = ["layers.0.q", "layers.0.k"];

const METHODS: readonly {
  readonly name: string;
  readonly method: (rank: number) => Method;
  readonly drift: boolean;
}[] = [
  {
    name: "iteris()",
    method: (rank) => ({ iteris: { rank, alpha: 1e-3, adaptiveWeights: "none" } }),
    drift: false,
  },
  { name: "iterisPlus()", method: (rank) => ({ plus: { rank, alpha: 1e-3 } }), drift: true },
];

function withPlainTruncation(method: Method): Method {
  return "plus" in method
    ? { plus: { ...method.plus, truncation: "plain" } }
    : { iteris: { ...method.iteris, truncation: "plain" } };
}

/** tr(W G Wᵀ) by hand. */
function energy(w: Matrix, g: Matrix): number {
  const image = times(w, g);
  return w.reduce((sum, row, i) => sum + row.reduce((part, value, j) => part + value * image[i]![j]!, 0), 0);
}

/** Eigenvalues of a symmetric matrix, descending, by Jacobi rotations. */
function eigenvalues(matrix: Matrix): number[] {
  const a = matrix.map((row) => [...row]);
  const n = a.length;
  for (let sweep = 0; sweep < 50; sweep++) {
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(a[p]![q]!) < 1e-300) continue;
        const angle = Math.atan2(2 * a[p]![q]!, a[p]![p]! - a[q]![q]!) / 2;
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        for (let k = 0; k < n; k++) {
          const [x, y] = [a[k]![p]!, a[k]![q]!];
          [a[k]![p], a[k]![q]] = [c * x + s * y, c * y - s * x];
        }
        for (let k = 0; k < n; k++) {
          const [x, y] = [a[p]![k]!, a[q]![k]!];
          [a[p]![k], a[q]![k]] = [c * x + s * y, c * y - s * x];
        }
      }
    }
  }
  return a.map((row, i) => row[i]!).sort((x, y) => y - x);
}

for (const { name, method, drift } of METHODS) {
  Deno.test(`${name} loses exactly the dropped eigenvalues of W G Wᵀ when the rank is cut`, async () => {
    const experts = expertTraces(toy, tasks);
    const full = await denseResult(await mergeToy(toy, tasks, method(99)));
    for (const rank of [1, 2, 3, 4]) {
      const merged = await mergeToy(toy, tasks, method(rank));
      const cut = await denseResult(merged);
      for (const module of FIRST) {
        const { g } = systemOf(toy, module, tasks, experts, experts, { alpha: 1e-3, lambda: "none", drift });
        const w = full.get(module)!;
        const lost = energy(combine(w, -1, cut.get(module)!), g);
        const values = eigenvalues(times(times(w, g), transpose(w)));
        const total = values.reduce((sum, value) => sum + value, 0);
        const dropped = values.slice(rank).reduce((sum, value) => sum + value, 0);
        assertAlmostEquals(lost, dropped, 1e-10 * total);
        const report = merged.report.sites.find((site) => site.module === module)!;
        assertAlmostEquals(report.rank.loss, dropped / total, 1e-10);
        assertEquals(report.rank.kept, rank);
        assertEquals(merged.deltas.get(module)!.a.shape[0], rank);
      }
    }
  });

  Deno.test(`${name} loses less than plain SVD of the same solution when the rank is cut`, async () => {
    const experts = expertTraces(toy, tasks);
    const full = await denseResult(await mergeToy(toy, tasks, method(99)));
    const merged = await mergeToy(toy, tasks, method(2));
    for (const module of FIRST) {
      const { loss, plainLoss } = merged.report.sites.find((site) => site.module === module)!.rank;
      assertLess(loss, plainLoss);
      const { g } = systemOf(toy, module, tasks, experts, experts, { alpha: 1e-3, lambda: "none", drift });
      const w = full.get(module)!;
      const plain = combine(w, -1, plainTruncation(w, 2));
      assertAlmostEquals(plainLoss, energy(plain, g) / energy(w, g), 1e-8);
    }
  });

  Deno.test(`${name} cuts by plain SVD when it is told to`, async () => {
    const full = await denseResult(await mergeToy(toy, tasks, method(99)));
    const merged = await mergeToy(toy, tasks, withPlainTruncation(method(2)));
    const cut = await denseResult(merged);
    for (const module of FIRST) {
      assertRelativelyClose(
        cut.get(module)!.flat(),
        plainTruncation(full.get(module)!, 2).flat(),
        1e-7,
        module,
      );
      const { loss, plainLoss } = merged.report.sites.find((site) => site.module === module)!.rank;
      assertEquals(loss, plainLoss);
    }
  });

  Deno.test(`${name} returns the whole solution when the rank is large enough`, async () => {
    const full = await denseResult(await mergeToy(toy, tasks, method(99)));
    const merged = await mergeToy(toy, tasks, method(6));
    for (const module of FIRST) {
      const expected = full.get(module)!.flat();
      assertRelativelyClose((await denseResult(merged)).get(module)!.flat(), expected, 1e-10);
      assert(merged.report.sites.find((site) => site.module === module)!.rank.loss < 1e-12);
    }
  });
}

/** The best rank-`rank` approximation of `w`, by orthogonal iteration on w wᵀ. */
function plainTruncation(w: Matrix, rank: number): Matrix {
  const square = times(w, transpose(w));
  let basis = zeros(rank, w.length).map((row, i) => row.map((_, j) => Math.cos(3 * i * j + i + 2 * j)));
  for (let step = 0; step < 3000; step++) basis = orthonormalRows(transpose(times(square, transpose(basis))));
  return times(transpose(basis), times(basis, w));
}

function orthonormalRows(rows: Matrix): Matrix {
  const done: Matrix = [];
  for (const row of rows) {
    let rest = [...row];
    for (const other of done) {
      const overlap = rest.reduce((sum, value, j) => sum + value * other[j]!, 0);
      rest = rest.map((value, j) => value - overlap * other[j]!);
    }
    const length = Math.hypot(...rest);
    done.push(rest.map((value) => value / length));
  }
  return done;
}

Deno.test("iterisPlus() gives fewer dimensions than asked when the solution has no more", async () => {
  const merged = await mergeToy(toy, [tasks[0]!], { plus: { rank: 5 } });
  for (const { rank } of merged.report.sites) assertEquals(rank.kept, 2);
  assertGreater(merged.report.sites.length, 0);
});
