import { dirname, join, normalize } from "node:path";
import { listFiles, ROOT } from "../house/workspace.ts";

/** Every Markdown file of the project: READMEs, `docs` and what else lies beside them. */
export function listDocuments(root: string = ROOT): string[] {
  return listFiles(root, ".", (file) => file.endsWith(".md")).filter((file) =>
    !/(?:^|\/)merged\//.test(file)
  );
}

/** Those of `documents` that hold an example to run: a fenced block marked `ts`. */
export async function withExamples(root: string, documents: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(documents.map((file) => Deno.readTextFile(join(root, file))));
  return documents.filter((_, i) => /^\s*```ts\b(?!.*\bignore\b)/m.test(texts[i]!));
}

/** Members among `folders` without a README, and libraries whose README has no example that runs. */
export async function findUndocumented(root: string, folders: readonly string[]): Promise<string[]> {
  const missing: string[] = [];
  for (const folder of folders) {
    const readme = `${folder}/README.md`;
    if (!await exists(join(root, readme))) missing.push(`${readme} is missing`);
    else if (folder.startsWith("libs/") && (await withExamples(root, [readme])).length === 0) {
      missing.push(`${readme} has no example in a \`\`\`ts block`);
    }
  }
  return missing;
}

/** Relative links, and images, in `documents` that lead to no file. */
export async function findBrokenLinks(root: string, documents: readonly string[]): Promise<string[]> {
  const broken: string[] = [];
  for (const file of documents) {
    const text = (await Deno.readTextFile(join(root, file))).replace(/^(\s*)(```|~~~)[\s\S]*?^\1\2/gm, "")
      .replace(/`[^`\n]*`/g, "");
    const targets = [
      ...text.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)/g),
      ...text.matchAll(/<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)="([^"]+)"/g),
      ...text.matchAll(/^\[[^\]]+\]:\s+(\S+)/gm),
    ].map(([, target]) => target!);
    for (const target of targets) {
      if (/^(?:[a-z]+:|#|\/\/)/i.test(target)) continue;
      const path = normalize(join(root, dirname(file), decodeURI(target.replace(/[?#].*$/, ""))));
      if (!await exists(path)) broken.push(`${file}: the link to ${target} leads nowhere`);
    }
  }
  return broken;
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}
