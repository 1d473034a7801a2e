import { FormatError } from "../errors.ts";
import type { RandomAccessFile } from "../io/random_access_file.ts";

/** A file in a zip archive. */
export interface ZipEntry {
  readonly name: string;
  readonly isCompressed: boolean;
  readonly compressedSize: number;
  readonly size: number;
  /** Where its local header begins. */
  readonly headerOffset: number;
}

const END = { signature: 0x06054b50, length: 22, maxComment: 0xffff };
const END_64 = { signature: 0x06064b50, length: 56 };
const LOCATOR_64 = { signature: 0x07064b50, length: 20 };
const ENTRY = { signature: 0x02014b50, length: 46 };
const LOCAL = { signature: 0x04034b50, length: 30 };
/** The value that stands where a number is in the entry's zip64 extra field. */
const IN_EXTRA = 0xffffffff;
const MAX_DIRECTORY_BYTES = 64 << 20;

/**
 * Reads what a zip archive holds, zip64 included (PKWARE APPNOTE 4.3).
 *
 * @throws {FormatError} `zip_invalid`
 */
export async function readCentralDirectory(file: RandomAccessFile): Promise<ZipEntry[]> {
  const { offset, size } = await findDirectory(file);
  if (size > MAX_DIRECTORY_BYTES || offset + size > file.size) {
    throw damaged("the directory lies outside the file", file.path);
  }
  const bytes = await file.read(offset, size);
  const entries: ZipEntry[] = [];
  for (let position = 0; position < bytes.length;) {
    const { entry, length } = readEntry(bytes, position, file.path);
    entries.push(entry);
    position += length;
  }
  return entries;
}

/**
 * Where an entry's data begin: behind its local header, whose lengths may differ from those in the directory.
 *
 * @throws {FormatError} `zip_invalid`
 */
export async function dataOffset(file: RandomAccessFile, { name, headerOffset, compressedSize }: ZipEntry) {
  if (headerOffset + LOCAL.length > file.size) {
    throw damaged(`${name} lies outside the file`, file.path);
  }
  const view = viewOf(await file.read(headerOffset, LOCAL.length));
  if (view.getUint32(0, true) !== LOCAL.signature) throw damaged(`${name} has no header`, file.path);
  const start = headerOffset + LOCAL.length + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + compressedSize > file.size) throw damaged(`${name} is cut short`, file.path);
  return start;
}

async function findDirectory(file: RandomAccessFile): Promise<{ offset: number; size: number }> {
  const length = Math.min(file.size, END.length + END.maxComment);
  const start = file.size - length;
  const view = viewOf(await file.read(start, length));
  for (let at = length - END.length; at >= 0; at--) {
    if (view.getUint32(at, true) !== END.signature) continue;
    const [size, offset] = [view.getUint32(at + 12, true), view.getUint32(at + 16, true)];
    const isLarge = size === IN_EXTRA || offset === IN_EXTRA || view.getUint16(at + 10, true) === 0xffff;
    return isLarge ? await findDirectory64(file, start + at) : { offset, size };
  }
  throw damaged("there is no directory at its end", file.path);
}

async function findDirectory64(
  file: RandomAccessFile,
  end: number,
): Promise<{ offset: number; size: number }> {
  const at = end - LOCATOR_64.length;
  const locator = at < 0 ? undefined : viewOf(await file.read(at, LOCATOR_64.length));
  if (locator?.getUint32(0, true) !== LOCATOR_64.signature) {
    throw damaged("the zip64 locator is missing", file.path);
  }
  const position = exact(locator.getBigUint64(8, true), file.path);
  if (position + END_64.length > file.size) {
    throw damaged("the zip64 record lies outside the file", file.path);
  }
  const view = viewOf(await file.read(position, END_64.length));
  if (view.getUint32(0, true) !== END_64.signature) {
    throw damaged("the zip64 record is missing", file.path);
  }
  return {
    size: exact(view.getBigUint64(40, true), file.path),
    offset: exact(view.getBigUint64(48, true), file.path),
  };
}

function readEntry(bytes: Uint8Array, at: number, path: string): { entry: ZipEntry; length: number } {
  if (at + ENTRY.length > bytes.length) throw damaged("the directory is cut short", path);
  const view = viewOf(bytes.subarray(at));
  if (view.getUint32(0, true) !== ENTRY.signature) throw damaged("the directory is damaged", path);
  const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) =>
    view.getUint16(offset, true)
  ) as [
    number,
    number,
    number,
  ];
  const length = ENTRY.length + nameLength + extraLength + commentLength;
  if (at + length > bytes.length) throw damaged("the directory is cut short", path);
  const nameStart = at + ENTRY.length;
  const name = new TextDecoder().decode(bytes.subarray(nameStart, nameStart + nameLength));
  const extra = bytes.subarray(nameStart + nameLength, nameStart + nameLength + extraLength);
  const [flags, method] = [view.getUint16(8, true), view.getUint16(10, true)];
  if (flags & 1) throw unsupported(`${name} is encrypted`, path);
  if (method !== 0 && method !== 8) throw unsupported(`${name} is compressed by method ${method}`, path);
  const [size, compressedSize, headerOffset] = resolveLarge(
    [24, 20, 42].map((offset) => view.getUint32(offset, true)),
    extra,
    path,
  ) as [number, number, number];
  if (method === 0 && size !== compressedSize) throw damaged(`${name} has two sizes`, path);
  return { entry: { name, isCompressed: method === 8, compressedSize, size, headerOffset }, length };
}

/** Replaces numbers that did not fit by those of the zip64 extra field, in the order in which it has them. */
function resolveLarge(values: readonly number[], extra: Uint8Array, path: string): number[] {
  if (!values.includes(IN_EXTRA)) return [...values];
  const view = viewOf(extra);
  for (let at = 0; at + 4 <= extra.length;) {
    const [id, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (id === 1) return takeLarge(values, view, at + 4, Math.min(at + 4 + length, extra.length), path);
    at += 4 + length;
  }
  throw damaged("a zip64 field is missing", path);
}

function takeLarge(
  values: readonly number[],
  view: DataView,
  start: number,
  end: number,
  path: string,
): number[] {
  let at = start;
  return values.map((value) => {
    if (value !== IN_EXTRA) return value;
    if (at + 8 > end) throw damaged("a zip64 field is cut short", path);
    at += 8;
    return exact(view.getBigUint64(at - 8, true), path);
  });
}

function exact(value: bigint, path: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw damaged(`a position is ${value}, which is beyond 2⁵³`, path);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged(message: string, path: string): FormatError {
  return new FormatError(
    "zip_invalid",
    `${path} is no sound zip archive: ${message}`,
    "Write the file again with numpy.savez.",
    path,
  );
}

function unsupported(message: string, path: string): FormatError {
  return new FormatError(
    "zip_unsupported",
    `${message}, which is not read`,
    "Write the file again with numpy.savez or numpy.savez_compressed.",
    path,
  );
}
