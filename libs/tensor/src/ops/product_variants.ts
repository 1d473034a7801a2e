/** The variants of a matrix product: kernel templates at fixed sizes of tiles, and whether operands are copied first. */
import { GEMM_FORMS, type GemmForm, type GemmKernel } from "../kernels/gemm_interface.ts";
import { gemmLanes } from "../kernels/gemm_lanes.ts";
import { gemmRegisters } from "../kernels/gemm_registers.ts";
import { gemmTiled } from "../kernels/gemm_tiled.ts";
import { MATRIX_UNITS } from "./matrix_units.ts";

/** One kernel template in all its forms, by {@linkcode formKey}. */
export type Family = ReadonlyMap<string, GemmKernel>;

/** One way to compute a product. */
export interface ProductVariant {
  readonly name: string;
  /** The devices that it was written for, and tuning tries it on; none for one that only tests use. */
  readonly suits: "hardware" | "software" | "tests";
  /** Its kernels; undefined for products on matrix units, which are queued in a way of their own. */
  readonly family: Family | undefined;
  /**
   * Operands that are copied first where their rows run along the inner index, so that those of the copy do not: `a` unless A is to be
   * transposed, `b` if B is.
   */
  readonly copies: readonly ("a" | "b")[];
}

/** The key of a form in a {@linkcode Family}. */
export function formKey(form: GemmForm): string {
  return JSON.stringify(form);
}

function family(make: (form: GemmForm) => GemmKernel): Family {
  return new Map(GEMM_FORMS.map((form) => [formKey(form), make(form)]));
}

const LANES_16X32 = family((form) => gemmLanes(form, { rows: 16, columnsEach: 4, depth: 1 }));

/** Tiles in workgroup memory. */
const HARDWARE: Readonly<Record<string, Family>> = {
  tiled_192x128: family((form) =>
    gemmTiled(form, { rows: 192, columns: 128, depth: 16, rowsEach: 12, columnsEach: 8 })
  ),
  tiled_128: family((form) =>
    gemmTiled(form, { rows: 128, columns: 128, depth: 24, rowsEach: 8, columnsEach: 8 })
  ),
  tiled_128x64: family((form) =>
    gemmTiled(form, { rows: 128, columns: 64, depth: 16, rowsEach: 8, columnsEach: 4 })
  ),
  tiled_64x128: family((form) =>
    gemmTiled(form, { rows: 64, columns: 128, depth: 16, rowsEach: 8, columnsEach: 8 })
  ),
  tiled_64: family((form) =>
    gemmTiled(form, { rows: 64, columns: 64, depth: 16, rowsEach: 4, columnsEach: 4 })
  ),
  tiled_32x128: family((form) =>
    gemmTiled(form, { rows: 32, columns: 128, depth: 16, rowsEach: 4, columnsEach: 8 })
  ),
  tiled_32: family((form) =>
    gemmTiled(form, { rows: 32, columns: 32, depth: 16, rowsEach: 4, columnsEach: 4 })
  ),
};

/** Blocks of C in registers, without workgroup memory. */
const SOFTWARE: Readonly<Record<string, Family>> = {
  registers_8x8: family((form) => gemmRegisters(form, { rows: 8, vectors: 2 })),
  registers_8x4: family((form) => gemmRegisters(form, { rows: 8, vectors: 1 })),
  registers_1x8: family((form) => gemmRegisters(form, { rows: 1, vectors: 2 })),
  lanes_16x32: LANES_16X32,
  lanes_8x32: family((form) => gemmLanes(form, { rows: 8, columnsEach: 4, depth: 1 })),
  lanes_8x16: family((form) => gemmLanes(form, { rows: 8, columnsEach: 2, depth: 4 })),
};

/** The tiled template at its smallest, which software drivers compile, too: the others take them seconds. */
const TESTS: Readonly<Record<string, Family>> = {
  tiled_8x8: family((form) =>
    gemmTiled(form, { rows: 8, columns: 8, depth: 4, rowsEach: 4, columnsEach: 4 })
  ),
};

const plain = (families: Readonly<Record<string, Family>>, suits: ProductVariant["suits"]) =>
  Object.entries(families).map(([name, family]) => ({ name, suits, family, copies: [] }));

/** Every variant, by name. */
export const PRODUCT_VARIANTS: ReadonlyMap<string, ProductVariant> = new Map<string, ProductVariant>(
  [
    { name: MATRIX_UNITS, suits: "hardware" as const, family: undefined, copies: [] },
    ...plain(HARDWARE, "hardware"),
    ...["tiled_192x128", "tiled_128"].map((name) => ({
      name: `${name}_copy_both`,
      suits: "hardware" as const,
      family: HARDWARE[name]!,
      copies: ["a", "b"] as const,
    })),
    ...plain(SOFTWARE, "software"),
    { name: "lanes_16x32_copy_a", suits: "software" as const, family: LANES_16X32, copies: ["a"] as const },
    { name: "lanes_16x32_copy_b", suits: "software" as const, family: LANES_16X32, copies: ["b"] as const },
    {
      name: "lanes_16x32_copy_both",
      suits: "software" as const,
      family: LANES_16X32,
      copies: ["a", "b"] as const,
    },
    ...plain(TESTS, "tests"),
  ].map((variant) => [variant.name, variant]),
);
