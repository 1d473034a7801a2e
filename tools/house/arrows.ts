/**
 * The house: which rooms there are, what lives in each and what each may import. The boundary check and the picture in
 * `docs/house.svg` are both made from this table, so a new room or arrow is written here and nowhere else.
 */

/** A member of the workspace. */
export interface Room {
  /** Folder of the member, from the workspace's root. */
  readonly path: string;
  /** What lives there, in a few words, for the picture. */
  readonly purpose: string;
  /** Folders of the members that it may import; `"*"` for any. */
  readonly mayImport: readonly string[] | "*";
  /** True where only tests may import it. */
  readonly testsOnly?: boolean;
}

/** Who may import what. */
export interface House {
  readonly rooms: readonly Room[];
  /** Members that the tests and benchmarks of every member may import, whatever its arrows are. */
  readonly testsMayImport: readonly string[];
  /** Packages that only tests may import. */
  readonly testOnlyPackages: readonly string[];
  /** Packages with one owner: the folders that may import them. */
  readonly ownedPackages: Readonly<Record<string, readonly string[]>>;
}

const LIBRARIES = ["libs/tensor", "libs/formats", "libs/model", "libs/lego", "libs/iteris", "libs/merge"];

export const HOUSE: House = {
  rooms: [
    { path: "libs/tensor", purpose: "GPU and float64 operations", mayImport: [] },
    { path: "libs/formats", purpose: "reading and writing adapters", mayImport: [] },
    { path: "libs/model", purpose: "forward passes, tokens", mayImport: ["libs/tensor", "libs/formats"] },
    { path: "libs/lego", purpose: "semantic units, clustering", mayImport: ["libs/tensor"] },
    { path: "libs/iteris", purpose: "objective and solver", mayImport: ["libs/tensor"] },
    {
      path: "libs/merge",
      purpose: "recipes, methods, the engine",
      mayImport: ["libs/tensor", "libs/formats", "libs/model", "libs/lego", "libs/iteris"],
    },
    { path: "apps/runner", purpose: "the commands", mayImport: [...LIBRARIES, "tools/std"] },
    { path: "apps/server", purpose: "the HTTP API and page", mayImport: [...LIBRARIES, "tools/std"] },
    {
      path: "libs/testing",
      purpose: "assertions, tolerances",
      mayImport: ["libs/formats"],
      testsOnly: true,
    },
    { path: "tools/std", purpose: "@std adapters", mayImport: [] },
    { path: "tools", purpose: "set-up, checks, benchmarks", mayImport: "*" },
    { path: "tests", purpose: "end-to-end, conformance", mayImport: "*" },
  ],
  testsMayImport: ["libs/testing", "tools/std"],
  testOnlyPackages: ["fast-check"],
  ownedPackages: { webgpu: ["libs/tensor", "tools"] },
};

const TEST_CODE = [
  /(?:_test|_bench|_for_tests)\.[mc]?[jt]sx?$/,
  /\/test_support(?:\/|\.ts$)/,
  /(?:^|\/)(?:bench|tests)\//,
  /^libs\/testing\//,
];

/** Test code, benchmarks included: the files that may import what only tests may import, and that only tests may import. */
export function isTestFile(path: string): boolean {
  return TEST_CODE.some((pattern) => pattern.test(path));
}
