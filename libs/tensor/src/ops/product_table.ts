/** Which variant computes a matrix product: by class of device and shape, or as it was tuned. */
import type { DeviceClass } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { LANES } from "../kernels/gemm_lanes.ts";
import { LEAST_ON_MATRIX_UNITS, MATRIX_UNITS, offersMatrixUnits } from "./matrix_units.ts";
import { PRODUCT_VARIANTS, type ProductVariant } from "./product_variants.ts";

/** What a product is, as far as the choice of a variant goes: `[rows, inner] × [inner, columns]`. */
export interface ProductShape {
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Elements from one row of A, as it is stored, to the next. */
  readonly strideA: number;
}

/** Bounds of a product's sizes; `work` is the product of all three. */
type Sizes = Readonly<Partial<Record<"rows" | "columns" | "inner" | "work", number>>>;

/** A line of the table. */
export interface ProductRule {
  readonly variant: string;
  readonly least?: Sizes;
  readonly most?: Sizes;
  /** Only where B is to be transposed, or is not. */
  readonly transposeB?: boolean;
  /** Only where A is not to be transposed and its rows are a multiple of 4 KiB apart: they share few lines of a processor's cache. */
  readonly crowdedA?: boolean;
}

// Staging operands whose rows run along the inner index costs a tenth of the speed for A and another for B; copies that are
// transposed beforehand cost a few hundredths in large products.
const HARDWARE: readonly ProductRule[] = [
  { variant: "tiled_192x128_copy_both", least: { rows: 6144, columns: 6144, inner: 256 } },
  { variant: "tiled_128_copy_both", least: { rows: 513, columns: 513, work: 2 ** 31 } },
  { variant: "tiled_128", least: { rows: 513, columns: 513 } },
  { variant: "tiled_128x64", least: { rows: 1024, columns: 49 } },
  { variant: "tiled_64x128", least: { rows: 49, columns: 1024 } },
  { variant: "tiled_64", least: { rows: 49, columns: 49 } },
  { variant: "tiled_32x128", least: { columns: 1024 } },
  { variant: "tiled_32" },
];

/** Lines of the table: those of a class of device, and of software drivers whose subgroups are as wide as the lane kernels take them. */
export type TableName = Exclude<DeviceClass, "cpu"> | "software_with_lanes";

/** The table: of the lines for a device, the first that admits a shape and names a variant that the device can run decides. */
export const PRODUCT_TABLE: Readonly<Record<TableName, readonly ProductRule[]>> = {
  tensor: [{ variant: MATRIX_UNITS, least: LEAST_ON_MATRIX_UNITS }, ...HARDWARE],
  gpu: HARDWARE,
  software: [
    { variant: "registers_1x8", most: { rows: 2 } },
    { variant: "registers_8x4", most: { columns: 32 } },
    { variant: "registers_8x8" },
  ],
  software_with_lanes: [
    { variant: "lanes_8x32", most: { rows: 8 }, least: { columns: 17 }, transposeB: false },
    { variant: "lanes_8x16", most: { rows: 8 } },
    { variant: "lanes_8x16", most: { columns: 16 } },
    { variant: "lanes_8x16", most: { rows: 63 }, transposeB: true },
    {
      variant: "lanes_16x32_copy_both",
      least: { rows: 64, columns: 128, work: 2 ** 22 },
      transposeB: true,
      crowdedA: true,
    },
    { variant: "lanes_16x32_copy_a", least: { columns: 128, work: 2 ** 22 }, crowdedA: true },
    { variant: "lanes_16x32_copy_b", least: { rows: 64, work: 2 ** 22 }, transposeB: true },
    { variant: "lanes_16x32" },
  ],
};

const CROWDED_STRIDE = 1024;

/** The lines of the table that hold for a device. */
export function tableOf({ info, limits }: GpuDevice): TableName {
  return info.class === "software" && limits.subgroupSize === LANES
    ? "software_with_lanes"
    : info.class as TableName;
}

/** True when a line of the table holds for a shape on a device. */
function admits(rule: ProductRule, device: GpuDevice, shape: ProductShape): boolean {
  const { rows, columns, inner, transposeA, transposeB, strideA } = shape;
  const sizes = { rows, columns, inner, work: rows * columns * inner };
  const within = (bounds: Sizes | undefined, holds: (size: number, bound: number) => boolean) =>
    (Object.entries(bounds ?? {}) as [keyof typeof sizes, number][])
      .every(([name, bound]) => holds(sizes[name], bound));
  return within(rule.least, (size, bound) => size >= bound) &&
    within(rule.most, (size, bound) => size <= bound) &&
    (rule.transposeB === undefined || rule.transposeB === transposeB) &&
    (!rule.crowdedA || (!transposeA && strideA % CROWDED_STRIDE === 0)) &&
    isOffered(rule.variant, device);
}

const offered = new WeakMap<GpuDevice, Map<string, boolean>>();

/** True when a device can run a variant. */
export function isOffered(name: string, device: GpuDevice): boolean {
  let known = offered.get(device);
  if (!known) offered.set(device, known = new Map());
  const before = known.get(name);
  if (before !== undefined) return before;
  const found = meetsRequirements(PRODUCT_VARIANTS.get(name)!, device);
  known.set(name, found);
  return found;
}

function meetsRequirements({ family }: ProductVariant, device: GpuDevice): boolean {
  if (!family) return offersMatrixUnits(device);
  return [...family.values()].every(({ kernel: { requires = {} } }) =>
    (requires.features ?? []).every((feature) => device.features.has(feature)) &&
    (requires.workgroupStorageBytes ?? 0) <= device.limits.workgroupStorageBytes &&
    (requires.invocationsPerWorkgroup ?? 0) <= device.limits.invocationsPerWorkgroup &&
    (requires.subgroupSize === undefined || requires.subgroupSize === device.limits.subgroupSize)
  );
}

/** The variants that are worth measuring on a device. */
export function candidates(device: GpuDevice): ProductVariant[] {
  const suits = device.info.class === "software" ? "software" : "hardware";
  return [...PRODUCT_VARIANTS.values()].filter((variant) =>
    variant.suits === suits && isOffered(variant.name, device)
  );
}

/** The bucket of a shape in what was tuned: its form, and its sizes up to the next power of two. */
export function bucketOf({ rows, columns, inner, transposeA, transposeB }: ProductShape): string {
  const form = `${transposeA ? "t" : "n"}${transposeB ? "t" : "n"}`;
  return [form, ...[rows, columns, inner].map((size) => 2 ** Math.ceil(Math.log2(Math.max(1, size))))].join(
    " ",
  );
}

/** The variant that the table gives for a shape. */
export function variantOfTable(device: GpuDevice, shape: ProductShape): ProductVariant {
  const rule = PRODUCT_TABLE[tableOf(device)].find((rule) => admits(rule, device, shape))!;
  return PRODUCT_VARIANTS.get(rule.variant)!;
}

/**
 * The variant for a shape: the one that was asked for, else as the device was tuned, else as the table says.
 *
 * @throws {TensorError} `unknown_kernel` when what was asked for does not exist
 */
export function chooseVariant(device: GpuDevice, shape: ProductShape, asked?: string): ProductVariant {
  if (asked !== undefined) {
    const variant = PRODUCT_VARIANTS.get(asked);
    if (variant) return variant;
    throw new TensorError(
      "unknown_kernel",
      `there is no kernel family ${asked}; there are ${[...PRODUCT_VARIANTS.keys()].join(", ")}`,
      "leave `kernel` out, or name one of them",
      "gemm",
    );
  }
  const tuned = device.tuned.size > 0 ? device.tuned.get(bucketOf(shape)) : undefined;
  return tuned === undefined ? variantOfTable(device, shape) : PRODUCT_VARIANTS.get(tuned)!;
}
