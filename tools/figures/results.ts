/**
 * What limits a case: arithmetic in f32, in f16, in f32 done as three products of f16, or as two where one operand is stored in 16 bits, the
 * memory, or the link to the host.
 */
export type Bound = "f32" | "f16" | "f32 in parts" | "f32 by 16 bits" | "memory" | "link";

/** One case of `tests/bench/linear_algebra.ts`. */
export interface Figure {
  readonly name: string;
  readonly milliseconds: number;
  readonly speed: number;
  readonly unit: "TFLOP/s" | "GB/s";
  readonly bound: Bound;
  /** Part of the operations that has to be done: half where the result is symmetric. */
  readonly part: number;
  /** Against float64, in units of f32's roundoff and relative to the sum of magnitudes; null where none was measured. */
  readonly error: number | null;
}

/** IterIS at the shapes of a 7B, from `tests/bench/iteris_7b.ts`. */
export interface IterisFigure {
  readonly method: string;
  readonly layers: number;
  /** All widths were divided by this. */
  readonly scale: number;
  readonly seconds: number;
  readonly secondsOf32Layers: number;
  /** null where none was recorded. */
  readonly backwardError: number | null;
}

/** A LoRA-LEGO merge at the shapes of a 7B, from `tests/bench/lego_7b.ts`. */
export interface LegoFigure {
  readonly layers: number;
  readonly adapters: number;
  readonly adapterRank: number;
  readonly rank: number;
  readonly seconds: {
    readonly total: number;
    readonly read: number;
    readonly compute: number;
    readonly write: number;
  };
  readonly ratio_to_plain_io: number;
  /** Relative distance of the merged deltas from those of the same merge in float64. */
  readonly distance?: number;
}

/** What PyTorch needs for the same cases on the same device, from `tests/bench/torch_peer.py`. */
export interface TorchFigures {
  readonly device: string;
  readonly version: string;
  readonly milliseconds: Readonly<Record<string, number>>;
}

/** One run of the suite. */
export interface Results {
  readonly device: { readonly name: string; readonly class: string; readonly driver: string };
  readonly profile: string;
  /** Version of the npm package `webgpu`. */
  readonly dawn: string;
  /** The commit that was measured; null where nobody said. */
  readonly commit: string | null;
  /** Measured on the device, in TFLOP/s and GB/s; null where none was. */
  readonly peaks: { readonly f32: number; readonly memory: number } | null;
  readonly figures: readonly Figure[];
  readonly iteris: readonly IterisFigure[];
  readonly lego: LegoFigure | null;
  readonly torch: TorchFigures | null;
}

/** Name of a device in names of files, such as `nvidia-h100-80gb-hbm3`: without what stands in brackets. */
export function slug(device: string): string {
  return device.replace(/\(.*?\)/g, "").trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(
    /^-|-$/g,
    "",
  );
}
