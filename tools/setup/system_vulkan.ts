import { isAbsolute, join } from "node:path";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Files that tell the Vulkan loader about drivers, in the places where it looks on Linux (Vulkan-Loader,
 * LoaderDriverInterface.md, "Linux Driver Discovery").
 */
export function findDriverFiles(env: Environment, root = "/"): string[] {
  const override = env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES;
  const named = (override ?? env.VK_ADD_DRIVER_FILES ?? "").split(":").filter(Boolean).flatMap(jsonFiles);
  if (override !== undefined) return named;
  const home = env.HOME ?? "/nonexistent";
  const folders = [
    env.XDG_CONFIG_HOME ?? join(home, ".config"),
    ...(env.XDG_CONFIG_DIRS ?? "/etc/xdg").split(":"),
    "/etc",
    env.XDG_DATA_HOME ?? join(home, ".local/share"),
    ...(env.XDG_DATA_DIRS ?? "/usr/local/share:/usr/share").split(":"),
    "/usr/local/share",
    "/usr/share",
  ].filter((folder) => isAbsolute(folder));
  const files = [...new Set(folders)].flatMap((folder) => jsonFiles(join(root, folder, "vulkan/icd.d")));
  return [...new Set([...named, ...files])];
}

/** `path` itself, or the JSON files of the folder that it is; nothing where it does not exist. */
function jsonFiles(path: string): string[] {
  try {
    if (Deno.statSync(path).isFile) return [path];
    return [...Deno.readDirSync(path)].map(({ name }) => name).filter((name) => name.endsWith(".json")).sort()
      .map((name) => join(path, name));
  } catch {
    return [];
  }
}
