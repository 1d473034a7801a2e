/** A value of a kernel's uniform parameters. */
export type ParameterType = "u32" | "i32" | "f32";

/**
 * A compute kernel as data: WGSL text and what it needs. The header (storage bindings in the order of `buffers`, then one
 * uniform struct `params`) is generated from the declaration, so the text starts with the kernel's own functions and has the
 * entry point `main`.
 */
export interface Kernel {
  /** Unique name of the variant, such as `gemm_nt_registers_8x4`. */
  readonly name: string;
  /** Storage buffers in binding order: WGSL name, element type, and how they are used. */
  readonly buffers: readonly KernelBuffer[];
  /** Uniform parameters in order; read in WGSL as `params.<name>`. At most 64 scalars, no vectors. */
  readonly params: readonly (readonly [name: string, type: ParameterType])[];
  /** WGSL without bindings. */
  readonly code: string;
  /** Lines such as `enable f16;` that must come first. */
  readonly enables?: readonly string[];
  /** What the adapter must offer. */
  readonly requires?: KernelRequirements;
}

export interface KernelBuffer {
  readonly name: string;
  /** WGSL element type: the binding is `array<element>`. */
  readonly element: string;
  readonly access: "read" | "read_write";
}

export interface KernelRequirements {
  readonly features?: readonly string[];
  readonly workgroupStorageBytes?: number;
  readonly invocationsPerWorkgroup?: number;
  /** Invocations of every subgroup. */
  readonly subgroupSize?: number;
}

/** The complete WGSL module of a kernel: its enables, bindings and parameters, then its code. */
export function kernelSource(kernel: Kernel): string {
  const bindings = kernel.buffers.map(({ name, element, access }, index) =>
    `@group(0) @binding(${index}) var<storage, ${access}> ${name}: array<${element}>;`
  );
  const parameters = kernel.params.length === 0 ? [] : [
    `struct Params { ${kernel.params.map(([name, type]) => `${name}: ${type}`).join(", ")} }`,
    `@group(0) @binding(${kernel.buffers.length}) var<uniform> params: Params;`,
  ];
  return [...kernel.enables ?? [], ...bindings, ...parameters, kernel.code].join("\n");
}
