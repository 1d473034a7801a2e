import type { Adapter } from "./adapter.ts";
import { chooseLayout } from "./layouts/choose.ts";
import type { OpenOptions } from "./layouts/layout.ts";
import { LAYOUTS } from "./layouts/registry.ts";
import { openSource } from "./layouts/source.ts";

/**
 * Opens an adapter: a folder or a single file, in any known layout, which is detected. Everything but the tensors'
 * values is read and checked; what would change the result and is not handled is refused by name.
 *
 * @throws {FormatError} `unknown_layout`, `mixed_layouts`, and the errors of the file and of the layout
 */
export async function openAdapter(path: string, options: OpenOptions = {}): Promise<Adapter> {
  const source = await openSource(path, LAYOUTS.flatMap((layout) => layout.weightFiles));
  try {
    return await chooseLayout(source, LAYOUTS).read(source, options);
  } catch (error) {
    source.weights.close();
    throw error;
  }
}
