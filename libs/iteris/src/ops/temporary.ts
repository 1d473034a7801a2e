import { CpuTensor, gemm, type Tensor } from "@lora-loom/tensor";
const f = (t: Tensor) => (t as CpuTensor).floats;
const wrap = (like: Tensor, data: Float64Array<ArrayBuffer>, shape: readonly number[]) =>
  (like as CpuTensor).device.wrap(data, shape);
export function scaleRows(x: Tensor, w: Tensor): Tensor {
  const c = x.shape[1]!;
  return wrap(x, f(x).map((v, i) => v * f(w)[Math.floor(i / c)]!), x.shape);
}
export function gram(
  x: Tensor,
  o: { of: "columns"; rowWeights?: Tensor; into?: Tensor; beta?: number },
): Tensor {
  using weighted = o.rowWeights ? scaleRows(x, o.rowWeights) : wrap(x, f(x).slice(), x.shape);
  return gemm(weighted, x, { transposeA: true, ...(o.into ? { into: o.into, beta: o.beta ?? 0 } : {}) });
}
/** x + factor·y */
export function add(x: Tensor, y: Tensor, o: { alpha?: number; beta?: number; into?: Tensor } = {}): Tensor {
  const out = o.into ?? wrap(x, new Float64Array(f(x).length), x.shape);
  const [p, q, r] = [f(x), f(y), f(out)];
  for (let i = 0; i < r.length; i++) r[i] = (o.alpha ?? 1) * p[i]! + (o.beta ?? 1) * q[i]!;
  return out;
}
export function sumOfSquares(x: Tensor): Tensor {
  return wrap(x, Float64Array.of(f(x).reduce((s, v) => s + v * v, 0)), [1]);
}
export function concatRows(xs: readonly Tensor[]): Tensor {
  const data = new Float64Array(xs.reduce((n, x) => n + f(x).length, 0));
  let at = 0;
  for (const x of xs) {
    data.set(f(x), at);
    at += f(x).length;
  }
  return wrap(xs[0]!, data, [xs.reduce((n, x) => n + x.shape[0]!, 0), xs[0]!.shape[1]!]);
}
export function transpose(x: Tensor): Tensor {
  const [m, n] = x.shape as [number, number];
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = f(x)[i * n + j]!;
  return wrap(x, out, [n, m]);
}
