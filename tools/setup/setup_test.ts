import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { withTemporaryWorkspace } from "../house/temporary_workspace.ts";
import {
  type AptSource,
  distributionSources,
  formatSources,
  parseListFile,
  parseSourcesFile,
} from "./apt_sources.ts";
import { findBrowser } from "./browser.ts";
import { installCommand, parseOsRelease } from "./distribution.ts";
import { majorVersion, readManifest } from "./driver.ts";
import { parseLdd } from "./libraries.ts";
import { SetupError } from "./errors.ts";
import { driverFolder, setUp } from "./setup.ts";
import { findDriverFiles } from "./system_vulkan.ts";

const MIRROR = "http://mirror.example/debian";

Deno.test("parseListFile() reads options, suites and components, and skips source packages and comments", () => {
  const text = `# deb ${MIRROR} sid main
deb [arch=amd64,arm64 signed-by=/keys/a.gpg] ${MIRROR} bookworm main contrib # ours
deb-src ${MIRROR} bookworm main
deb ${MIRROR}-security bookworm-security main
`;
  assertEquals(parseListFile(text), [
    {
      uri: MIRROR,
      suite: "bookworm",
      components: ["main", "contrib"],
      fields: { "Architectures": "amd64 arm64", "Signed-By": "/keys/a.gpg" },
    },
    { uri: `${MIRROR}-security`, suite: "bookworm-security", components: ["main"], fields: {} },
  ]);
});

Deno.test("parseSourcesFile() gives a source for each URI and suite, and keeps a key that is written out", () => {
  const text = `Types: deb deb-src
# a comment in between
URIs: ${MIRROR}
Suites: bookworm bookworm-updates
Components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://other.example
Suites: stable
Components: main
Enabled: no

Types: deb-src
URIs: ${MIRROR}
Suites: bookworm
Components: main
`;
  const key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc";
  assertEquals(
    parseSourcesFile(text),
    ["bookworm", "bookworm-updates"].map((suite): AptSource => ({
      uri: MIRROR,
      suite,
      components: ["main"],
      fields: { "signed-by": key },
    })),
  );
});

Deno.test("formatSources() is read back by parseSourcesFile()", () => {
  const sources = parseListFile(`deb [signed-by=/keys/a.gpg] ${MIRROR} noble main universe\n`);
  const [again] = parseSourcesFile(formatSources(sources));
  assertEquals(again, { ...sources[0]!, fields: { ...sources[0]!.fields, Targets: "Packages" } });
});

Deno.test("distributionSources() adds backports from the same mirror and leaves other archives out", () => {
  const sources = parseListFile(`deb [signed-by=/keys/a.gpg] ${MIRROR} bookworm main
deb ${MIRROR} bookworm-updates main
deb http://other.example nodistro main
deb http://other.example bookworm stable
`);
  const own = distributionSources(sources, "bookworm", true);
  assertEquals(own.map(({ suite }) => suite), ["bookworm", "bookworm-updates", "bookworm-backports"]);
  assertEquals(own[2], { ...own[0]!, suite: "bookworm-backports" });
  assertEquals(distributionSources(sources, "bookworm", false).length, 2);
  assertEquals(distributionSources(own, "bookworm", true), own);
  assertEquals(distributionSources(sources, "trixie", true), []);
});

Deno.test("parseOsRelease() knows Debian, Ubuntu, what is made from them, and others", () => {
  assertEquals(
    parseOsRelease(`PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n`),
    { id: "debian", codename: "bookworm", title: "Debian GNU/Linux 12 (bookworm)", usesApt: true },
  );
  const mint = parseOsRelease(
    `ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n`,
  );
  assertEquals([mint.usesApt, mint.codename], [true, "noble"]);
  const fedora = parseOsRelease("ID=fedora\n");
  assertEquals(fedora.usesApt, false);
  assertStringIncludes(installCommand(fedora), "dnf install mesa-vulkan-drivers");
});

Deno.test("majorVersion() reads the first number after an epoch", () => {
  assertEquals(["25.0.7-2~bpo12+1", "1:22.3.6-1", "156.0.1"].map(majorVersion), [25, 22, 156]);
});

Deno.test("parseLdd() tells found libraries from missing ones", () => {
  const text = `\tlinux-vdso.so.1 (0x00007f92ef77e000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f92ef74e000)
\tlibLLVM-15.so.1 => not found
\tlibdrm.so.2 => /a folder/libdrm.so.2 (0x00007f92ef67c000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f92ef780000)
`;
  assertEquals([...parseLdd(text)], [
    ["libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"],
    ["libLLVM-15.so.1", undefined],
    ["libdrm.so.2", "/a folder/libdrm.so.2"],
  ]);
});

Deno.test("findDriverFiles() looks where the Vulkan loader looks", async () => {
  const files = {
    "usr/share/vulkan/icd.d/lvp_icd.json": "{}",
    "usr/share/vulkan/icd.d/notes.txt": "",
    "etc/vulkan/icd.d/nvidia_icd.json": "{}",
    "home/me/.local/share/vulkan/icd.d/own.json": "{}",
    "elsewhere/swiftshader.json": "{}",
  };
  await withTemporaryWorkspace(files, (root) => {
    const find = (env: Record<string, string>) =>
      findDriverFiles(env, root).map((path) => path.slice(root.length + 1));
    assertEquals(find({ HOME: "/home/me" }), [
      "etc/vulkan/icd.d/nvidia_icd.json",
      "home/me/.local/share/vulkan/icd.d/own.json",
      "usr/share/vulkan/icd.d/lvp_icd.json",
    ]);
    const elsewhere = join(root, "elsewhere/swiftshader.json");
    assertEquals(find({ VK_DRIVER_FILES: elsewhere }), ["elsewhere/swiftshader.json"]);
    assertEquals(find({ VK_ICD_FILENAMES: `${elsewhere}:/missing.json` }), ["elsewhere/swiftshader.json"]);
    assertEquals(find({ VK_ADD_DRIVER_FILES: join(root, "elsewhere") }).length, 3);
    return Promise.resolve();
  });
});

const MANIFEST = {
  version: 1,
  icd: "icd.json",
  loader: "lib/libvulkan.so.1",
  libraries: ["lib/libvulkan.so.1"],
  title: "lavapipe",
  packages: ["mesa-vulkan-drivers_25.0.7"],
};

const DRIVER = {
  ".cache/vulkan/driver.json": JSON.stringify(MANIFEST),
  ".cache/vulkan/icd.json": "{}",
  ".cache/vulkan/lib/libvulkan.so.1": "",
};

Deno.test("readManifest() accepts only a description whose files are all there", async () => {
  await withTemporaryWorkspace(DRIVER, async (root) => {
    const folder = driverFolder(root);
    assertEquals(readManifest(folder), MANIFEST as ReturnType<typeof readManifest>);
    await Deno.writeTextFile(join(folder, "driver.json"), JSON.stringify({ ...MANIFEST, version: 2 }));
    assertEquals(readManifest(folder), undefined);
    await Deno.writeTextFile(join(folder, "driver.json"), JSON.stringify(MANIFEST));
    await Deno.remove(join(folder, "lib/libvulkan.so.1"));
    assertEquals(readManifest(folder), undefined);
    await Deno.writeTextFile(join(folder, "driver.json"), "{ half");
    assertEquals(readManifest(folder), undefined);
  });
});

Deno.test("setUp() leaves a driver in place that was fetched before", async () => {
  await withTemporaryWorkspace(DRIVER, async (root) => {
    const lines: string[] = [];
    const { state, message } = await setUp(root, (line) => lines.push(line));
    assertEquals([state, lines], ["cached", []]);
    assertStringIncludes(message, "lavapipe (mesa-vulkan-drivers 25.0.7)");
  });
});

/** Runs `body` with the variable that names a browser; undefined removes it. */
async function withBrowserVariable(value: string | undefined, body: () => Promise<void>): Promise<void> {
  const before = Deno.env.get("LORA_LOOM_BROWSER");
  const set = (text: string | undefined) =>
    text === undefined ? Deno.env.delete("LORA_LOOM_BROWSER") : Deno.env.set("LORA_LOOM_BROWSER", text);
  set(value);
  try {
    await body();
  } finally {
    set(before);
  }
}

Deno.test("findBrowser() takes the browser that is named, else the machine's, else the one that was fetched", () =>
  withTemporaryWorkspace({
    "mine": "",
    "theirs": "",
    ".cache/chromium/usr/lib/chromium/chromium": "",
    ".cache/chromium/usr/lib/x86_64-linux-gnu/libnss3.so": "",
  }, async (root) => {
    const places = [join(root, "nowhere"), join(root, "theirs")];
    await withBrowserVariable(join(root, "mine"), async () => {
      assertEquals(await findBrowser(root, places), { path: join(root, "mine"), env: {} });
    });
    await withBrowserVariable(undefined, async () => {
      assertEquals((await findBrowser(root, places))?.path, join(root, "theirs"));
      const fetched = join(root, ".cache/chromium");
      assertEquals(await findBrowser(root, []), {
        path: join(fetched, "usr/lib/chromium/chromium"),
        env: {
          LD_LIBRARY_PATH: join(fetched, "usr/lib/x86_64-linux-gnu"),
          FONTCONFIG_FILE: join(fetched, "fonts.conf"),
        },
      });
      assertEquals(await findBrowser(join(root, "empty"), []), undefined);
    });
  }));

Deno.test("findBrowser() refuses a name where there is no browser, instead of taking another one", () =>
  withBrowserVariable("/nowhere/chrome", async () => {
    const error = await assertRejects(() => findBrowser("/", []), SetupError);
    assertEquals(error.code, "browser_missing");
    assertStringIncludes(error.message, "/nowhere/chrome");
  }));
