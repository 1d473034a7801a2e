import { MergeError } from "@lora-loom/merge";

/** How to reach a server. */
export interface ServerAddress {
  /** Such as `http://localhost:8420`. */
  readonly server: string;
  readonly token: string | undefined;
}

/** A failure as a server describes it. */
export interface RemoteError {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  readonly where: string;
}

function badServer(message: string, server: string): MergeError {
  return new MergeError("invalid_server", message, `write --server ${server}`, "--server");
}

/**
 * Reads an address. A path stays, for a server may lie behind another one that gives it a part of its paths.
 *
 * @throws {MergeError} `invalid_server`
 */
function parseServer(server: string): URL {
  const url = URL.parse(server);
  if (url && /^https?:$/.test(url.protocol)) {
    if (url.search === "" && url.hash === "") return url;
    // Such as the address with the token that the server prints for browsers.
    throw badServer("the address goes on after its path, expected none of ? and #", url.origin);
  }
  const text = JSON.stringify(server);
  const missing = server.includes("//") ? null : URL.parse(`http://${server}`);
  if (missing?.host) throw badServer(`${text} lacks http:// or https:// at its start`, missing.origin);
  throw badServer(`${text} is no server's address`, "http://localhost:8420");
}

/** Requests to one server. Failures come as the server describes them. */
export class Connection {
  readonly #url: URL;
  readonly #base: string;
  readonly #headers: Record<string, string>;

  constructor({ server, token }: ServerAddress) {
    this.#url = parseServer(server);
    this.#base = this.#url.href.replace(/\/$/, "");
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** Where something of the server is. */
  address(path: string): string {
    return `${this.#base}${path}`;
  }

  async send(path: string, init: RequestInit & { duplex?: "half" } = {}): Promise<Response> {
    const headers = { ...this.#headers, ...init.headers as Record<string, string> };
    let response: Response;
    try {
      response = await fetch(this.address(path), { ...init, headers });
    } catch (error) {
      init.signal?.throwIfAborted();
      throw new MergeError(
        "server_unreachable",
        `${this.#base} does not answer: ${(error as Error).message}`,
        "see whether the server runs (deno task serve), and check --server",
        this.#base,
        "work",
      );
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => undefined) as { error?: RemoteError } | undefined;
    throw this.#refusal(response.status, body?.error);
  }

  async json<T>(path: string, init?: RequestInit & { duplex?: "half" }): Promise<T> {
    return await (await this.send(path, init)).json() as T;
  }

  #refusal(status: number, error: RemoteError | undefined): MergeError {
    if (error?.code === "token_missing" || error?.code === "token_wrong") {
      const fix =
        "give the token with --token or in LORA_LOOM_TOKEN; it lies in the file token of the server's data folder";
      return new MergeError(error.code, error.message, fix, "--token");
    }
    if (this.#url.pathname !== "/" && (!error || error.code === "no_such_route")) {
      return badServer(
        `no server answers below ${this.#base}; the address has the path ${this.#url.pathname}, expected none`,
        this.#url.origin,
      );
    }
    const blame = status < 500 ? "request" : "work";
    if (error) return new MergeError(error.code, error.message, error.fix, error.where, blame);
    const message = `${this.#base} answered ${status}, but not as this program's server does`;
    return new MergeError("not_a_server", message, "check --server", this.#base, blame);
  }
}
