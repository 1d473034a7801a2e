/** The Linux distribution, after `/etc/os-release`. */
export interface Distribution {
  /** `debian`, `ubuntu`, … */
  readonly id: string;
  /** `bookworm`, `noble`, …; empty where there is none. */
  readonly codename: string;
  /** What people call it. */
  readonly title: string;
  /** True for Debian, Ubuntu and what is made from them. */
  readonly usesApt: boolean;
}

/** Reads the text of `/etc/os-release`. */
export function parseOsRelease(text: string): Distribution {
  const fields: Record<string, string> = {};
  for (const [, key, value] of text.matchAll(/^([A-Z_]+)=(.*)$/gm)) {
    fields[key!] = value!.trim().replace(/^(["'])(.*)\1$/, "$2");
  }
  const id = fields.ID ?? "linux";
  const family = [id, ...(fields.ID_LIKE ?? "").split(/\s+/)];
  return {
    id,
    codename: fields.UBUNTU_CODENAME ?? fields.VERSION_CODENAME ?? "",
    title: fields.PRETTY_NAME ?? id,
    usesApt: family.includes("debian") || family.includes("ubuntu"),
  };
}

/** The distribution this program runs on. */
export function readDistribution(): Distribution {
  for (const path of ["/etc/os-release", "/usr/lib/os-release"]) {
    try {
      return parseOsRelease(Deno.readTextFileSync(path));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return parseOsRelease("");
}

const INSTALL_COMMANDS: Readonly<Record<string, string>> = {
  debian:
    "apt-get install mesa-vulkan-drivers libvulkan1   (as root; on Debian 12 enable its backports and add -t bookworm-backports)",
  ubuntu: "apt-get install mesa-vulkan-drivers libvulkan1   (as root)",
  fedora: "dnf install mesa-vulkan-drivers vulkan-loader   (as root)",
  arch: "pacman -S vulkan-swrast vulkan-icd-loader   (as root)",
  opensuse: "zypper install libvulkan_lvp libvulkan1   (as root)",
  alpine: "apk add mesa-vulkan-swrast vulkan-loader   (as root)",
};

/** What to type to get a software Vulkan driver from the distribution's own packages. */
export function installCommand({ id }: Distribution): string {
  const key = Object.keys(INSTALL_COMMANDS).find((name) => id.startsWith(name));
  if (key === undefined) {
    return "install Mesa's Vulkan drivers (lavapipe, Mesa 23 or newer) and the Vulkan loader";
  }
  return INSTALL_COMMANDS[key]!;
}
