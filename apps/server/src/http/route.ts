import type { Services } from "./context.ts";
import type { Schema } from "./schemas.ts";

/** What a handler gets. */
export interface RouteInput {
  readonly request: Request;
  readonly url: URL;
  /** Values of the path's parameters. */
  readonly params: Readonly<Record<string, string>>;
  readonly services: Services;
}

/** A parameter in a path, a query or a header. */
export interface RouteParameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly description: string;
  readonly required?: boolean;
  readonly schema: Schema;
}

/** A body by its media type. */
export type Content = Readonly<Record<string, { readonly schema: Schema }>>;

/**
 * One route as data: the server's routes and the OpenAPI document are both made from this, so that neither can say what
 * the other does not.
 */
export interface Route {
  readonly method: "get" | "post" | "delete";
  /** As OpenAPI writes it: `/api/adapters/{id}`. */
  readonly path: string;
  /** A stable name for programs, such as `listAdapters`. */
  readonly id: string;
  readonly summary: string;
  readonly parameters?: readonly RouteParameter[];
  readonly body?: Content;
  /** What a success looks like, by status. */
  readonly responses: Readonly<Record<number, { readonly description: string; readonly content?: Content }>>;
  /** Statuses of the errors that belong to this route; 401, 403 and 500 belong to all. */
  readonly errors?: readonly number[];
  handle(input: RouteInput): Response | Promise<Response>;
}

/** A JSON response. */
export function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return Response.json(value, { status, headers });
}
