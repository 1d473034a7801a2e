/** Numbers that JSON has no words for. */
const NAMED = new Map<string, number>([["NaN", NaN], ["Infinity", Infinity], ["-Infinity", -Infinity], [
  "-0",
  -0,
]]);

function nameOf(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

/** JSON that gives every number back to the bit, NaN and the infinities included, and token ids as `Uint32Array`. */
export function toExactJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (part instanceof Uint32Array) return { $tokens: [...part] };
    if (typeof part === "number" && NAMED.has(nameOf(part))) return { $number: nameOf(part) };
    return part;
  });
}

/** What {@linkcode toExactJson} was given. */
export function fromExactJson(text: string): unknown {
  return JSON.parse(text, (_key, part: { $tokens?: unknown; $number?: unknown } | null) => {
    if (Array.isArray(part?.$tokens)) return Uint32Array.from(part.$tokens);
    return typeof part?.$number === "string" ? NAMED.get(part.$number) : part;
  });
}
