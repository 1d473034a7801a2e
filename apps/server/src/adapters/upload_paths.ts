import { ServerError } from "../errors.ts";

/** Files that an adapter can consist of; others in a folder or archive are left out. */
const KEPT = /\.(?:safetensors|json|gguf|npz)$/i;
const WEIGHTS = /\.(?:safetensors|gguf|npz)$/i;
const PICKLES = /\.(?:bin|pt|pth|ckpt|pkl)$/i;
/** Longest name that every file system takes. */
const MAX_NAME_BYTES = 255;

/** Where an uploaded file belongs. */
export interface UploadPath {
  /** The folder it came from, with `/` between its parts; empty where it came alone. */
  readonly folder: string;
  readonly name: string;
  /** Whether it is part of an adapter. */
  readonly isKept: boolean;
  readonly isWeights: boolean;
  readonly isPickle: boolean;
}

function isControl(character: string): boolean {
  const code = character.codePointAt(0)!;
  return code < 0x20 || code === 0x7f;
}

function fault(path: string): string | undefined {
  if (path === "") return "it is empty";
  if ([...path].some(isControl)) return "it holds a control character";
  if (/[\\<>:"|?*]/.test(path)) return 'it holds one of \\ < > : " | ? *';
  const parts = path.split("/");
  if (parts[0] === "") return "it is absolute";
  if (parts.some((part) => part === ".." || part === ".")) return "it leads to another folder";
  if (parts.slice(0, -1).some((part) => part === "")) return "it has an empty part";
  const isLong = parts.some((part) => new TextEncoder().encode(part).length > MAX_NAME_BYTES);
  return isLong ? `a part of it is longer than ${MAX_NAME_BYTES} bytes` : undefined;
}

/** A text from outside, fit to stand in an error message. */
export function shown(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 77)}…` : text;
  return JSON.stringify([...short].map((character) => isControl(character) ? "�" : character).join(""));
}

/**
 * Reads the path that a client gave a file, in a form, in an archive or as `?name=`. Nothing is ever written under such
 * a path: only its last part becomes a name inside the adapter's own folder.
 *
 * @throws {ServerError} `invalid_name` for a path that could lead elsewhere, or that some system could not store
 */
export function readUploadPath(path: string): UploadPath {
  const problem = fault(path);
  if (problem !== undefined) {
    throw new ServerError(
      400,
      "invalid_name",
      `${shown(path)} is no name for a file of an adapter: ${problem}`,
      "name files such as adapter_model.safetensors or language/adapter_config.json",
      shown(path),
    );
  }
  const parts = path.split("/");
  const name = parts.at(-1)!;
  const isHidden = parts.some((part) => part.startsWith(".") || part === "__MACOSX");
  return {
    folder: parts.slice(0, -1).join("/"),
    name,
    isKept: !isHidden && KEPT.test(name),
    isWeights: WEIGHTS.test(name),
    isPickle: !isHidden && PICKLES.test(name),
  };
}
