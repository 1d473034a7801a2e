/** What was dropped or chosen, as adapters to upload. */

const WEIGHTS = /\.(?:safetensors|gguf|npz)$/i;
const PART = /\.(?:safetensors|json|gguf|npz|bin|pt|pth|ckpt)$/i;
const CONFIG = "adapter_config.json";

/** All files of a drop, folders included, with their paths. */
export async function filesOfDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return filesOfInput(transfer.files);
  return (await Promise.all(entries.map(filesOfEntry))).flat();
}

/** All files of an input, with their paths where a folder was chosen. */
export function filesOfInput(files) {
  return [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

async function filesOfEntry(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    return [{
      path,
      file: await new Promise((resolve, reject) => entry.file(resolve, reject)),
    }];
  }
  const reader = entry.createReader();
  const children = [];
  // A reader gives a hundred entries at most at a time.
  while (true) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    children.push(...batch);
  }
  return (await Promise.all(children.map(filesOfEntry))).flat();
}

function folderOf(path) {
  return path.split("/").slice(0, -1).join("/");
}

function nameOf(path) {
  return path.split("/").at(-1);
}

/**
 * Sorts files into adapters: a folder that holds weights is one; an archive is one; loose weight files are one each,
 * unless a configuration lies beside them.
 */
export function adaptersOf(files) {
  const uploads = [];
  const folders = new Map();
  for (const one of files) {
    const name = nameOf(one.path);
    if (name.startsWith(".")) continue;
    if (/\.zip$/i.test(name)) uploads.push({ name: name.replace(/\.zip$/i, ""), files: [one] });
    else if (PART.test(name)) {
      const folder = folderOf(one.path);
      folders.set(folder, [...folders.get(folder) ?? [], one]);
    }
  }
  for (const [folder, parts] of folders) {
    const hasConfig = parts.some(({ path }) => nameOf(path) === CONFIG);
    const weights = parts.filter(({ path }) => WEIGHTS.test(path));
    if (hasConfig || weights.length === 0) {
      uploads.push({ name: folder.split("/").at(-1) || "adapter", files: parts });
    } else {uploads.push(
        ...weights.map((one) => ({ name: nameOf(one.path).replace(WEIGHTS, ""), files: [one] })),
      );}
  }
  return uploads;
}
