import { readImports } from "./imports.ts";
import { memberOf, readMembers } from "./workspace.ts";

/** An import that leads from one member of the workspace into another. */
export interface MemberEdge {
  /** Folder of the importing member. */
  readonly source: string;
  /** Folder of the imported member. */
  readonly target: string;
  /** The file that imports. */
  readonly file: string;
}

/** Every import between members of the workspace at `root`, once a file. */
export async function memberEdges(root: string): Promise<MemberEdge[]> {
  const members = readMembers(root);
  const edges = new Map<string, MemberEdge>();
  for (const { file, target } of await readImports(root, members)) {
    const source = memberOf(file, members);
    const targetMember = target === undefined ? undefined : memberOf(target, members);
    if (!source || !targetMember || source === targetMember) continue;
    edges.set(`${file} ${targetMember.path}`, { source: source.path, target: targetMember.path, file });
  }
  return [...edges.values()];
}
