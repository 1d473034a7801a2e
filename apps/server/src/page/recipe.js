/** A request as the recipe file and the command line that do the same. */

/** A text as YAML; quoted where it could be read as something else. */
function scalar(value) {
  if (typeof value !== "string") return String(value);
  const isPlain = /^[A-Za-z0-9_./+-][A-Za-z0-9_./+() -]*$/.test(value) &&
    !/^(?:true|false|null|yes|no|on|off|~|[-+.]?\d.*|- .*)$/i.test(value) && !value.endsWith(" ");
  return isPlain ? value : JSON.stringify(value);
}

const list = (values) => `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;

/**
 * The recipe in YAML. The file names adapters by paths, which only its reader knows: they are written as their names.
 *
 * @param nameOf gives the name of an adapter or a calibration text by its id
 * @param readingOf gives how an adapter is read by its id: {drop?, expand?}
 */
export function recipeYaml(request, nameOf, readingOf = () => ({})) {
  const lines = [`method: ${scalar(request.method)}`];
  if (request.base_model) lines.push(`base_model: ${scalar(request.base_model)}`);
  lines.push(request.adapters.length > 0 ? "adapters:" : "adapters: []");
  for (const { id, name, weight, calibration } of request.adapters) {
    lines.push(`  - path: ${scalar(`adapters/${nameOf(id)}`)}`);
    if (name) lines.push(`    name: ${scalar(name)}`);
    if (weight !== undefined && weight !== 1) lines.push(`    weight: ${weight}`);
    if (calibration) lines.push(`    calibration: ${scalar(nameOf(calibration))}`);
    const { drop, expand } = readingOf(id);
    if (drop) lines.push(`    drop: ${list(drop)}`);
    if (expand) lines.push("    expand: true");
  }
  const parameters = Object.entries(request.parameters ?? {});
  if (parameters.length > 0) {
    lines.push("parameters:", ...parameters.map(([name, value]) => `  ${name}: ${scalar(value)}`));
  }
  if (request.include) lines.push(`include: ${list(request.include)}`);
  if (request.exclude) lines.push(`exclude: ${list(request.exclude)}`);
  lines.push("output:", "  path: merged");
  if (request.format) lines.push(`  format: ${request.format}`);
  if (request.dtype) lines.push(`  dtype: ${request.dtype}`);
  if (request.seed !== undefined) lines.push(`seed: ${request.seed}`);
  return lines.join("\n") + "\n";
}

/** The command that runs the recipe on this server. */
export function commandLine() {
  return `deno task merge recipe.yaml --server ${location.origin}`;
}
