import type { Adapter } from "./adapter.ts";
import { FormatError } from "./errors.ts";
import type { Layout, OpenOptions } from "./layouts/layout.ts";
import { LAYOUTS } from "./layouts/registry.ts";
import { type AdapterSource, openSource } from "./layouts/source.ts";

/**
 * Opens an adapter: a folder or a single file, in any known layout, which is detected. Everything but the tensors'
 * values is read and checked; what would change the result and is not handled is refused by name.
 *
 * @throws {FormatError} `unknown_layout`, `mixed_layouts`, and the errors of the file and of the layout
 */
export async function openAdapter(path: string, options: OpenOptions = {}): Promise<Adapter> {
  const source = await openSource(path, LAYOUTS.flatMap((layout) => layout.weightFiles));
  try {
    return await chooseLayout(source).read(source, options);
  } catch (error) {
    source.weights.close();
    throw error;
  }
}

function chooseLayout(source: AdapterSource): Layout {
  const claims = LAYOUTS.flatMap((layout) => {
    const sign = layout.detect(source);
    return sign === undefined ? [] : [{ layout, sign }];
  });
  const [first, second] = claims;
  if (!first) throw unknownLayout(source);
  if (!second) return first.layout;
  throw new FormatError(
    "mixed_layouts",
    `${source.path} mixes two layouts: ${first.layout.title} (${first.sign}) and ${second.layout.title} (${second.sign})`,
    "Store each adapter in a file of its own.",
    source.path,
  );
}

function unknownLayout(source: AdapterSource): FormatError {
  const keys = [...source.weights.tensors.keys()].slice(0, 3).map((key) => JSON.stringify(key)).join(", ");
  const titles = LAYOUTS.map((layout) => layout.title).join(", ");
  return new FormatError(
    "unknown_layout",
    `no known adapter layout (${titles}) has keys such as ${keys || "none at all"}`,
    "Check that the path names an adapter, not a model.",
    source.path,
  );
}
