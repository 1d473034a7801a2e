import { fileURLToPath } from "node:url";
import { assert, assertEquals } from "@std/assert";
import type { AdapterResource } from "../adapters/adapter.ts";
import type { PublicError } from "../errors.ts";
import { Access } from "../http/access.ts";
import { createApp, ROUTES } from "../http/app.ts";
import { openApiDocument } from "../http/openapi.ts";
import { SCHEMAS } from "../http/schemas.ts";
import type { MergeResource } from "../merges/merge.ts";
import { type OpenServices, openServices, type ServiceOptions } from "../open_services.ts";
import { INSPECTION } from "../work/inspection.ts";
import { CpuMerger } from "./mergers.ts";
import { misfits } from "./schema.ts";

/** Absolute path of something in the repository. */
export function repositoryPath(path: string): string {
  return fileURLToPath(new URL(`../../../../${path}`, import.meta.url));
}

/** A folder with an adapter that was trained. */
export const adapterPath = (name: string) => repositoryPath(`examples/tiny-llama/adapters/${name}`);

/** Files of a PEFT folder. */
export const PEFT_FILES = ["adapter_config.json", "adapter_model.safetensors"];

/** Runs `body` with an empty folder that is removed afterwards. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "loom-server-" });
  try {
    return await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Checks a response against what the OpenAPI document says of its route. */
async function checkAgainstDocument(method: string, path: string, response: Response): Promise<void> {
  const route = ROUTES.find((one) =>
    one.method === method.toLowerCase() &&
    new RegExp(`^${one.path.replaceAll(/\{\w+\}/g, "[^/]+")}$`).test(path)
  );
  if (!route) return;
  const { responses } = openApiDocument([route]).paths[route.path]![route.method] as {
    responses: Record<number, { content?: Record<string, { schema: Record<string, unknown> }> }>;
  };
  const announced = responses[response.status];
  assert(announced, `${method} ${path} answered ${response.status}, which is not announced`);
  const schema = announced.content?.["application/json"]?.schema;
  if (!schema) return;
  assertEquals(misfits(await response.clone().json(), schema, SCHEMAS), [], `${method} ${path}`);
}

/** A server without a socket. */
export class TestServer {
  constructor(
    readonly services: OpenServices,
    private readonly send: (request: Request) => Response | Promise<Response>,
  ) {}

  /** Sends a request; what the API answers is checked against the OpenAPI document. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const response = await this.send(new Request(`http://localhost${path}`, init));
    const { pathname } = new URL(`http://localhost${path}`);
    await checkAgainstDocument(init.method ?? "GET", pathname, response);
    return response;
  }

  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    const response = await this.fetch(path, init);
    assert(
      response.ok,
      `${init.method ?? "GET"} ${path}: ${response.status} ${await response.clone().text()}`,
    );
    return await response.json() as T;
  }

  post(path: string, value: unknown): Promise<Response> {
    const headers = { "content-type": "application/json" };
    return this.fetch(path, { method: "POST", headers, body: JSON.stringify(value) });
  }

  /** Uploads an example adapter as a browser does. */
  async upload(name: string, as = name): Promise<AdapterResource> {
    const body = await formOf(adapterPath(name));
    return await this.json(`/api/adapters?name=${as}`, { method: "POST", body });
  }

  async startMerge(request: unknown): Promise<MergeResource> {
    const response = await this.post("/api/merges", request);
    assertEquals(response.status, 202, await response.clone().text());
    return await response.json() as MergeResource;
  }

  /** Waits until a merge is in one of these states. */
  async until(id: string, ...states: readonly string[]): Promise<MergeResource> {
    while (true) {
      const merge = await this.json<MergeResource>(`/api/merges/${id}`);
      if (states.includes(merge.state)) return merge;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** The files of a PEFT folder as a form. */
export async function formOf(folder: string, prefix = ""): Promise<FormData> {
  const form = new FormData();
  for (const name of PEFT_FILES) {
    form.append("file", new Blob([await Deno.readFile(`${folder}/${name}`)]), `${prefix}${name}`);
  }
  return form;
}

/** Options of {@linkcode withServer}. */
export interface TestOptions extends Partial<ServiceOptions> {
  readonly token?: string;
}

/** Runs `body` with a server on `data`, which stays. */
export async function onData<T>(
  data: string,
  { token, ...options }: TestOptions,
  body: (server: TestServer) => Promise<T>,
): Promise<T> {
  const services = await openServices({
    inspector: INSPECTION,
    mergers: [new CpuMerger()],
    ...options,
    data,
  });
  // What keeps a listening server alive: workers alone do not hold the event loop.
  const alive = setInterval(() => {}, 1000);
  try {
    const app = await createApp(services, new Access(token));
    return await body(new TestServer(services, (request) => app.fetch(request)));
  } finally {
    await services.stop();
    clearInterval(alive);
  }
}

/** Runs `body` with a server on an empty data folder. */
export function withServer<T>(
  options: TestOptions,
  body: (server: TestServer, data: string) => Promise<T>,
): Promise<T> {
  return withFolder((folder) =>
    onData(`${folder}/data`, options, (server) => body(server, `${folder}/data`))
  );
}

/** The error in a response, with the status that was expected. */
export async function errorOf(response: Response, status: number): Promise<PublicError> {
  const text = await response.text();
  assertEquals(response.status, status, text);
  const { error } = JSON.parse(text) as { error: PublicError };
  assertEquals(Object.keys(error).sort(), ["code", "fix", "message", "where"]);
  return error;
}
