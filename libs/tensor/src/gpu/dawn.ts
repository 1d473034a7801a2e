import { TensorError } from "../errors.ts";
import { spaceOutPolling } from "./polling.ts";
import { withoutDawnNoise } from "./quiet_stderr.ts";
import { prepareSoftwareDriver } from "./software_driver.ts";

/** The two sets of Dawn toggles: `safe` keeps WebGPU's guarantees, `fast` gives up bounds checks and validation. */
export type Profile = "safe" | "fast";

/** Dawn toggles to switch on and off. */
export interface Toggles {
  readonly enable: readonly string[];
  readonly disable: readonly string[];
}

const SAFE: Toggles = {
  // f16 on NVIDIA and subgroup matrices are behind these; timestamps would be rounded to 65 µs.
  enable: ["vulkan_enable_f16_on_nvidia", "allow_unsafe_apis"],
  disable: ["timestamp_quantization"],
};

const FAST: Toggles = {
  enable: [
    ...SAFE.enable,
    "skip_validation",
    "disable_robustness",
    "disable_workgroup_init",
    "disable_polyfills_on_integer_div_and_mod",
  ],
  disable: SAFE.disable,
};

/** The toggles of each profile. Dawn ignores unknown names silently, so a test asserts their effects. */
const TOGGLES: Readonly<Record<Profile, Toggles>> = { safe: SAFE, fast: FAST };

/** Toggles that one driver needs on top of the profile's, by part of the adapter's name. */
const DRIVER_TOGGLES: readonly (readonly [name: RegExp, toggles: Toggles])[] = [
  // SwiftShader takes seconds to compile kernels with workgroup memory when the driver zeroes that memory.
  [/swiftshader/i, { enable: [], disable: ["use_vulkan_zero_initialize_workgroup_memory_extension"] }],
];

/** What {@linkcode createInstance} needs to know. */
export interface InstanceOptions {
  readonly backend?: "null";
  readonly profile: Profile;
  /** Part of the adapter's name as {@linkcode listAdapterNames} gives it. */
  readonly adapter?: string;
}

interface Dawn {
  create(flags: string[]): GPU;
  readonly globals: object;
}

let loading: Promise<Dawn> | undefined;

/** Loads Dawn once, after the Vulkan driver that a set-up may have put into the project was made visible to it. */
function loadDawn(): Promise<Dawn> {
  loading ??= (async () => {
    prepareSoftwareDriver();
    spaceOutPolling();
    try {
      return await import("webgpu") as Dawn;
    } catch (error) {
      throw new TensorError(
        "no_dawn",
        `the package webgpu (Dawn) could not be loaded: ${error instanceof Error ? error.message : error}`,
        "run `npm install` in the project's root; supported are Linux, macOS and Windows on x64 and arm64",
        "webgpu",
      );
    }
  })();
  return loading;
}

/** The toggles of a profile, with those that the named adapter needs besides. */
export function togglesFor(profile: Profile, adapter = ""): Toggles {
  const sets = [
    TOGGLES[profile],
    ...DRIVER_TOGGLES.filter(([name]) => name.test(adapter)).map(([, set]) => set),
  ];
  return { enable: sets.flatMap((set) => set.enable), disable: sets.flatMap((set) => set.disable) };
}

/** The flags for Dawn's `create`. */
function instanceFlags({ backend, profile, adapter }: InstanceOptions): string[] {
  const { enable, disable } = togglesFor(profile, adapter);
  return [
    ...backend ? [`backend=${backend}`] : [],
    ...adapter ? [`adapter=${adapter}`] : [],
    `enable-dawn-features=${enable.join(",")}`,
    `disable-dawn-features=${disable.join(",")}`,
  ];
}

/** A WebGPU entry point. The caller must keep it for as long as an adapter or device made from it lives. */
export async function createInstance(options: InstanceOptions): Promise<GPU> {
  const dawn = await loadDawn();
  return dawn.create(instanceFlags(options));
}

/** The most powerful adapter that an instance's flags allow. */
export function requestAdapter(gpu: GPU): Promise<GPUAdapter | null> {
  return withoutDawnNoise(() => gpu.requestAdapter({ powerPreference: "high-performance" }));
}

/** Names of all adapters that Dawn accepts, the most powerful first. */
export async function listAdapterNames(profile: Profile): Promise<string[]> {
  const dawn = await loadDawn();
  // Dawn has no call for this, but lists the adapters when asked for one that does not exist.
  const gpu = dawn.create([...instanceFlags({ profile }), "adapter=\u0001"]);
  try {
    await requestAdapter(gpu);
    return [];
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return [...text.matchAll(/^ \* backend: '[^']*', name: '(.*)'$/gm)].map((match) => match[1]!);
  }
}
