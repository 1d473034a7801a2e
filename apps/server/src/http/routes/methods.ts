import {
  defaultText,
  type Method,
  METHODS,
  parameterJsonSchema,
  parametersJsonSchema,
  rangeText,
} from "@lora-loom/merge";
import { json, type Route } from "../route.ts";
import { ref } from "../schemas.ts";

function methodResource(method: Method) {
  const { name, title, summary, formula, source, needs, parameters } = method;
  return {
    name,
    title,
    summary,
    formula,
    source,
    needs: { base_model: needs.baseModel, calibration: needs.calibration },
    parameters: parameters.map((spec) => ({
      name: spec.name,
      help: spec.help,
      formula: spec.formula ?? null,
      type: spec.type,
      range: rangeText(spec),
      default: defaultText(spec),
      schema: parameterJsonSchema(spec),
    })),
    schema: parametersJsonSchema(method),
  };
}

export const methodRoutes: readonly Route[] = [{
  method: "get",
  path: "/api/methods",
  id: "listMethods",
  summary: "The methods, with help and JSON Schema of their parameters",
  responses: {
    200: {
      description: "all methods",
      content: { "application/json": { schema: { type: "array", items: ref("Method") } } },
    },
  },
  handle: () => json([...METHODS.values()].map(methodResource)),
}];
