/** What stands before the number of a layer in a module's name, and the number: `model.layers` and 3. */
interface Layer {
  readonly stack: string;
  readonly index: number;
}

/** The first number in a module's dotted name counts its layer. */
function layerOf(module: string): Layer | undefined {
  const match = /^(.*?)\.(\d+)(?:\.|$)/.exec(module);
  return match ? { stack: match[1]!, index: Number(match[2]) } : undefined;
}

/**
 * How deep a module lies: 0 in the first layer, 1 in the last, from the layers that the merge has in the same stack (an
 * encoder and a decoder count apart). 0 for modules outside layers, and where there is one layer only.
 */
export function layerPosition(module: string, modules: readonly string[]): number {
  const layer = layerOf(module);
  if (!layer) return 0;
  const indices = modules.map(layerOf).filter((other) => other?.stack === layer.stack).map((other) =>
    other!.index
  );
  const [first, last] = [Math.min(...indices), Math.max(...indices)];
  return last === first ? 0 : (layer.index - first) / (last - first);
}
