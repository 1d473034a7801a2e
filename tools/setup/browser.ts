import { basename, dirname, join } from "node:path";
import { PrivateApt, unpack } from "./apt.ts";
import { readDistribution } from "./distribution.ts";
import { SetupError } from "./errors.ts";
import { libraryFolders } from "./libraries.ts";

/** A browser to start, and the variables it needs. */
export interface BrowserProgram {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Names a browser of one's own. */
const VARIABLE = "LORA_LOOM_BROWSER";

/** Where systems keep Chromium and what is made of it. */
const PLACES: readonly string[] = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/usr/bin/google-chrome-stable",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];

/** Folder of the fetched browser in a project at `root`. */
const browserFolder = (root: string): string => join(root, ".cache/chromium");
/** Where Debian's package puts the program itself, below its script. */
const PROGRAM = "usr/lib/chromium/chromium";
/** Without fonts a page has no text, and its parts other sizes: the fetched ones are told of, beside the machine's. */
const FONTS_FILE = "fonts.conf";
const FONTS = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">usr/share/fonts</dir>
  <dir>/usr/share/fonts</dir>
</fontconfig>
`;
const PLUGINS =
  /\/(?:perl|perl-base|gio|gtk-3\.0|gdk-pixbuf-2\.0|krb5|engines-3|ossl-modules|systemd|cryptsetup)(?:\/|$)/;

async function isFile(path: string): Promise<boolean> {
  return await Deno.stat(path).then((status) => status.isFile, () => false);
}

/**
 * The browser of this machine, else the one that was fetched before, else one that is fetched now.
 *
 * @param root the project's folder
 * @throws {SetupError} `browser_missing`, `package_unavailable`, and those of apt
 */
export async function ensureBrowser(root: string, log: (line: string) => void): Promise<BrowserProgram> {
  return await findBrowser(root) ?? await fetchBrowser(root, log);
}

/**
 * The browser that `LORA_LOOM_BROWSER` names, else one of this machine, else the one that was fetched before.
 *
 * @param places files to look at, besides
 * @throws {SetupError} `browser_missing` where the variable names none
 */
export async function findBrowser(
  root: string,
  places: readonly string[] = PLACES,
): Promise<BrowserProgram | undefined> {
  const wanted = Deno.env.get(VARIABLE);
  if (wanted) {
    if (await isFile(wanted)) return { path: wanted, env: {} };
    const message = `${VARIABLE} names ${wanted}, where there is no file`;
    throw new SetupError("browser_missing", message, `correct it, or type: unset ${VARIABLE}`, VARIABLE);
  }
  for (const path of places) if (await isFile(path)) return { path, env: {} };
  return await isFile(join(browserFolder(root), PROGRAM)) ? fetched(browserFolder(root)) : undefined;
}

function fetched(folder: string): BrowserProgram {
  // Folders of other programs' plug-ins, such as Perl's, hold nothing that it loads.
  const libraries = libraryFolders(join(folder, "usr/lib")).filter((path) => !PLUGINS.test(path));
  return {
    path: join(folder, PROGRAM),
    env: { LD_LIBRARY_PATH: libraries.join(":"), FONTCONFIG_FILE: join(folder, FONTS_FILE) },
  };
}

/**
 * Fetches Chromium from the distribution's packages into `.cache/chromium`, without root; about 300 MB,
 * more where the machine lacks its libraries.
 *
 * @param root the project's folder
 * @throws {SetupError} where the distribution has no package of it
 */
async function fetchBrowser(root: string, log: (line: string) => void): Promise<BrowserProgram> {
  const distribution = readDistribution();
  const folder = browserFolder(root);
  // Ubuntu's package only asks for a snap.
  if (distribution.id !== "debian") throw unavailable(distribution.title, folder);
  await Deno.mkdir(dirname(folder), { recursive: true });
  const scratch = await Deno.makeTempDir({ dir: dirname(folder), prefix: "chromium-setup-" });
  try {
    const apt = await PrivateApt.open(join(scratch, "apt"), distribution, false);
    if (await apt.candidate("chromium") === undefined) throw unavailable(distribution.title, folder);
    log("fetching Chromium from the distribution's packages (once, some minutes)");
    const unpacked = join(scratch, "root");
    for (const file of await apt.fetchWithDependencies(["chromium", "fonts-liberation"])) {
      // The C library of the running system must stay the only one.
      if (!/^libc6_|^libc-bin_/.test(basename(file))) await unpack(file, unpacked);
    }
    await Deno.writeTextFile(join(unpacked, FONTS_FILE), FONTS);
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    await Deno.rename(unpacked, folder);
    return fetched(folder);
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

function unavailable(title: string, where: string): SetupError {
  return new SetupError(
    "package_unavailable",
    `${title} has no package of Chromium that can be fetched here, and no browser was found`,
    `install Chromium or Chrome, or name the program of one: export ${VARIABLE}=/path/to/chrome`,
    where,
  );
}
