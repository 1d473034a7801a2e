import { FormatError } from "../errors.ts";
import type { Layout } from "./layout.ts";
import type { AdapterSource } from "./source.ts";

/**
 * The one layout that claims a source.
 *
 * @throws {FormatError} `unknown_layout` where none does, `mixed_layouts` where several do
 */
export function chooseLayout(source: AdapterSource, layouts: readonly Layout[]): Layout {
  const claims = layouts.flatMap((layout) => {
    const sign = layout.detect(source);
    return sign === undefined ? [] : [{ layout, sign }];
  });
  const [first, second] = claims;
  if (!first) throw unknownLayout(source, layouts);
  if (!second) return first.layout;
  throw new FormatError(
    "mixed_layouts",
    `${source.path} mixes two layouts: ${first.layout.title} (${first.sign}) and ${second.layout.title} (${second.sign})`,
    "Store each adapter in a file of its own.",
    source.path,
  );
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
