import { gaussians, seeded } from "@lora-loom/testing";

/** A matrix in host memory whose entries are exact in float32. */
export interface HostMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array<ArrayBuffer>;
}

/** Standard normal entries times `scale`. */
export function randomMatrix(rows: number, columns: number, seed: number, scale = 1): HostMatrix {
  return {
    rows,
    columns,
    data: Float32Array.from(gaussians(rows * columns, seed), (value) => scale * value),
  };
}

/** Entries of very different magnitudes: 10^±spread. */
export function wideMatrix(rows: number, columns: number, seed: number, spread: number): HostMatrix {
  const random = seeded(seed);
  const data = Float32Array.from(
    { length: rows * columns },
    () => (random() < 0.5 ? -1 : 1) * 10 ** (spread * (2 * random() - 1)),
  );
  return { rows, columns, data };
}

/** The transpose. */
export function transposed({ rows, columns, data }: HostMatrix): HostMatrix {
  return {
    rows: columns,
    columns: rows,
    data: Float32Array.from(
      { length: data.length },
      (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!,
    ),
  };
}

/** Sums of w·a·b and of their magnitudes, for every row of `a` and every column of `b`: by definition, in float64. */
export function products(a: HostMatrix, b: HostMatrix, weights?: ArrayLike<number>) {
  const size = a.rows * b.columns;
  const [sum, magnitude] = [new Float64Array(size), new Float64Array(size)];
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      for (let p = 0; p < a.columns; p++) {
        const term = a.data[i * a.columns + p]! * b.data[p * b.columns + j]! * (weights?.[p] ?? 1);
        sum[i * b.columns + j]! += term;
        magnitude[i * b.columns + j]! += Math.abs(term);
      }
    }
  }
  return { sum, magnitude };
}

/** XᵀX / rows + ridge · I of Gaussian X, rounded to float32. */
export function positiveDefinite(n: number, ridge: number, seed: number): HostMatrix {
  const rows = 2 * n + 3;
  const x = gaussians(rows * n, seed);
  const data = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? ridge : 0;
      for (let p = 0; p < rows; p++) sum += x[p * n + i]! * x[p * n + j]! / rows;
      data[i * n + j] = data[j * n + i] = sum;
    }
  }
  return { rows: n, columns: n, data };
}

/** √Σ x². */
export function norm(values: ArrayLike<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));
}
