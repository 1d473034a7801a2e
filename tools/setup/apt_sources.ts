/** A package archive from apt's configuration. */
export interface AptSource {
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  /** Further fields such as `Signed-By`, as they would stand in a `.sources` file. */
  readonly fields: Readonly<Record<string, string>>;
}

const OPTION_FIELDS: Readonly<Record<string, string>> = {
  "arch": "Architectures",
  "signed-by": "Signed-By",
  "trusted": "Trusted",
  "check-valid-until": "Check-Valid-Until",
};

/** Reads the one-line format of `sources.list(5)`. */
export function parseListFile(text: string): AptSource[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)/.exec(line);
    if (!match) return [];
    const [, options = "", uri, suite, components = ""] = match;
    const fields: Record<string, string> = {};
    for (const [, key, value] of options.matchAll(/([\w-]+)=(\S+)/g)) {
      const field = OPTION_FIELDS[key!];
      if (field) fields[field] = value!.replaceAll(",", " ");
    }
    return [{ uri: uri!, suite: suite!, components: components.trim().split(/\s+/).filter(Boolean), fields }];
  });
}

/** Reads the deb822 format of `sources.list(5)`: one source for each URI and suite of each stanza. */
export function parseSourcesFile(text: string): AptSource[] {
  const stanzas = text.split(/\n(?:[ \t]*\n)+/);
  return stanzas.flatMap((stanza) => {
    const { Types, URIs, Suites, Components, Enabled, ...fields } = parseStanza(stanza);
    if (!words(Types).includes("deb") || /^(?:no|false|0)$/i.test(Enabled ?? "")) return [];
    return words(URIs).flatMap((uri) =>
      words(Suites).map((suite) => ({ uri, suite, components: words(Components), fields }))
    );
  });
}

const CANONICAL = ["Types", "URIs", "Suites", "Components", "Enabled"];

function parseStanza(stanza: string): Record<string, string> {
  const fields: Record<string, string> = {};
  let last: string | undefined;
  for (const line of stanza.split("\n")) {
    if (line.startsWith("#")) continue;
    const start = /^([\w-]+):[ \t]*(.*)$/.exec(line);
    if (start) {
      // Field names are case-insensitive.
      last = CANONICAL.find((name) => name.toLowerCase() === start[1]!.toLowerCase()) ?? start[1]!;
      fields[last] = start[2]!;
    } else if (last !== undefined && /^[ \t]/.test(line)) fields[last] += `\n${line}`;
  }
  return fields;
}

const words = (text = ""): string[] => text.split(/\s+/).filter(Boolean);

/** Writes sources in the deb822 format. Only package lists are asked for: no translations, no contents. */
export function formatSources(sources: readonly AptSource[]): string {
  return sources.map(({ uri, suite, components, fields }) => {
    const all = {
      Types: "deb",
      URIs: uri,
      Suites: suite,
      Components: components.join(" "),
      Targets: "Packages",
      ...fields,
    };
    return Object.entries(all).map(([name, value]) => `${name}: ${value}\n`).join("");
  }).join("\n");
}

/**
 * The sources of the distribution itself: `codename`, its updates and its security fixes. With `backports` that suite
 * is added from the same mirror, signed by the same key.
 */
export function distributionSources(
  sources: readonly AptSource[],
  codename: string,
  backports: boolean,
): AptSource[] {
  const suites = [codename, `${codename}-updates`, `${codename}-security`, `${codename}-backports`];
  const own = sources.filter(({ suite, components }) =>
    suites.includes(suite) && components.includes("main")
  );
  const base = own.find(({ suite }) => suite === codename);
  const hasBackports = own.some(({ suite }) => suite === suites[3]);
  return backports && base && !hasBackports ? [...own, { ...base, suite: suites[3]! }] : own;
}
