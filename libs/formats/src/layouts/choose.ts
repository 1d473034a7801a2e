import { FormatError } from "../errors.ts";
import type { Layout } from "./layout.ts";
import type { AdapterSource } from "./source.ts";

/**
 * The one layout that claims a source, by its container, the names of its tensors and its configuration.
 *
 * @param layouts in order of precedence: a name is of the first layout that owns it
 * @throws {FormatError} `unknown_layout` where none does, `mixed_layouts` where several do
 */
export function chooseLayout(source: AdapterSource, layouts: readonly Layout[]): Layout {
  const candidates = layouts.filter(({ container }) => container === source.container);
  const claims = findClaims(source, candidates);
  const [first, second] = claims;
  if (!first) throw unknownLayout(source, layouts);
  if (!second) return first[0];
  throw new FormatError(
    "mixed_layouts",
    `${source.path} mixes two layouts: ${first[0].title} (${first[1]}) and ${second[0].title} (${second[1]})`,
    "Store each adapter in a file of its own.",
    source.path,
  );
}

/** Each layout that claims the source, with the first sign of it. */
function findClaims(source: AdapterSource, layouts: readonly Layout[]): [Layout, sign: string][] {
  const claims = claimsByKey(source, (key) => layouts.find((layout) => layout.ownsKey(key)));
  for (const layout of layouts) {
    const sign = source.config && layout.configSign?.(source.config);
    if (sign !== undefined && !claims.has(layout)) claims.set(layout, `${sign} in adapter_config.json`);
  }
  // A container that one layout alone uses is a sign by itself.
  if (source.container !== "safetensors") {
    for (const layout of layouts) claims.set(layout, `a ${layout.title} file`);
  }
  if (claims.size > 0) return [...claims];
  return [...claimsByKey(source, (key) => layouts.find((layout) => layout.mayOwnKey?.(key)))];
}

function claimsByKey(
  { weights }: AdapterSource,
  ownerOf: (key: string) => Layout | undefined,
): Map<Layout, string> {
  const claims = new Map<Layout, string>();
  for (const key of weights.tensors.keys()) {
    const owner = ownerOf(key);
    if (owner && !claims.has(owner)) claims.set(owner, `the key ${key}`);
  }
  return claims;
}

function unknownLayout(source: AdapterSource, layouts: readonly Layout[]): FormatError {
  const keys = [...source.weights.tensors.keys()].slice(0, 3).map((key) => JSON.stringify(key)).join(", ");
  const titles = layouts.map((layout) => layout.title).join(", ");
  return new FormatError(
    "unknown_layout",
    `no known adapter layout (${titles}) has keys such as ${keys || "none at all"}`,
    "Check that the path names an adapter, not a model.",
    source.path,
  );
}
