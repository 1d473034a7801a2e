import * as v from "valibot";
import { ModelError } from "./errors.ts";

/**
 * Checks a parsed `config.json` against a schema.
 *
 * @throws {ModelError} `invalid_config` naming every key that does not fit
 */
export function parseWith<Schema extends v.GenericSchema>(
  schema: Schema,
  json: unknown,
  where: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, json);
  if (!result.success) throw invalid(result.issues.map(describeIssue).join("; "), where);
  return result.output;
}

/** @throws {ModelError} `unsupported_quantization` where there is a `quantization_config` */
export function refuseQuantised(quantization: unknown, where: string): void {
  if (quantization === undefined || quantization === null) return;
  const method = (quantization as { quant_method?: unknown }).quant_method;
  throw new ModelError(
    "unsupported_quantization",
    `the model is quantised (quantization_config, ${
      method ?? "method not named"
    }); expected BF16, F16 or F32 weights`,
    "use the unquantised base model that the adapters were trained on",
    where,
  );
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const path = issue.path?.map((item) => String(item.key)).join(".") ?? "config";
  return `${path}: expected ${issue.expected ?? "something else"}, found ${issue.received}`;
}

export function invalid(message: string, where: string): ModelError {
  return new ModelError(
    "invalid_config",
    message,
    "take config.json from the model's original folder",
    where,
  );
}

/** A setting that would change the mathematics. */
export function unsupported(key: string, found: string, expected: string, where: string): ModelError {
  return new ModelError(
    `unsupported_${key}`,
    `config.json has ${key} ${found}; expected ${expected}`,
    "use a base model with a supported configuration",
    where,
  );
}
