import { constants } from "node:fs";
import { access, open, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { isComparisonReport, MergeError } from "@lora-loom/merge";

/** Bytes from the start of a file that show whether it is a report. */
const OPENING = 1024;

/**
 * Makes sure before the work that a report can be written: its folder is there and lets itself be written to, and no
 * file is lost but an earlier report.
 *
 * @param made a folder that will have been made by then
 * @throws {MergeError} `not_found`, `not_a_directory`, `not_writable` or `not_a_report`
 */
export async function checkReportFile(report: string, made: string | undefined): Promise<void> {
  const folder = dirname(resolve(report));
  if (made === undefined || folder !== resolve(made)) await checkFolder(folder, report);
  const status = await stat(report).catch(absent);
  if (status === undefined || status.isFile() && await isReport(report)) return;
  throw new MergeError(
    "not_a_report",
    `${report} exists and is ${
      status.isDirectory() ? "a folder" : "no earlier report"
    }; only such a report is replaced`,
    "name another file with --report, or remove this one",
    `--report ${report}`,
  );
}

async function checkFolder(folder: string, report: string): Promise<void> {
  const refuse = (code: string, found: string, fix: string) =>
    new MergeError(code, `the folder of the report, ${folder}, ${found}`, fix, `--report ${report}`);
  const status = await stat(folder).catch(absent);
  if (!status) {
    throw refuse("not_found", "does not exist", `make it (mkdir -p '${folder}'), or name another file`);
  }
  if (!status.isDirectory()) throw refuse("not_a_directory", "is a file", "name a file in a folder");
  try {
    await access(folder, constants.W_OK | constants.X_OK);
  } catch {
    throw refuse("not_writable", "cannot be written to", "change its permissions, or name a file elsewhere");
  }
}

function absent(error: { readonly code?: string }): undefined {
  // ENOTDIR: a part of the path is a file; what the folder is says more.
  if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
}

async function isReport(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(new Uint8Array(OPENING), 0, OPENING, 0);
    return isComparisonReport(new TextDecoder().decode(buffer.subarray(0, bytesRead)));
  } finally {
    await file.close();
  }
}
