import { describeError, type ErrorReport } from "@lora-loom/merge";
import process from "node:process";

/** Exit status of a failure: 2 when the request is wrong, 1 when the work failed. */
function exitStatus({ blame }: ErrorReport): 1 | 2 {
  return blame === "request" ? 2 : 1;
}

/** An error for people: code and message, where, and what to do. */
function errorText(report: ErrorReport): string {
  const lines = [`error[${report.code}]: ${report.message}`];
  if (report.where) lines.push(`  where: ${report.where}`);
  if (report.fix) lines.push(`  fix:   ${report.fix}`);
  return lines.join("\n");
}

/** An error for programs. */
function errorJson({ code, message, fix, where }: ErrorReport): string {
  return JSON.stringify({ error: { code, message, fix, where } });
}

/** Prints an error and says what to exit with; the stack only with LORA_LOOM_DEBUG=1. */
export function reportError(error: unknown, asJson: boolean): 1 | 2 {
  const report = describeError(error);
  if (asJson) console.log(errorJson(report));
  console.error(errorText(report));
  if (process.env.LORA_LOOM_DEBUG === "1" && error instanceof Error) console.error(error.stack);
  return exitStatus(report);
}
