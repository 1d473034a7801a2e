import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { ServerError } from "../errors.ts";

/** Name of the cookie that stands for the token in a browser. */
const COOKIE = "loom_session";
const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Whether an address is one of this machine alone. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.has(host) || host === "::1";
}

/** Reads the token of a data folder; makes one, for this user's eyes only, where there is none. */
export async function readToken(path: string): Promise<{ token: string; isNew: boolean }> {
  try {
    return { token: (await Deno.readTextFile(path)).trim(), isNew: false };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const token = randomBytes(32).toString("base64url");
  await Deno.writeTextFile(path, `${token}\n`, { createNew: true, mode: 0o600 });
  return { token, isNew: true };
}

/** Compares in a time that tells nothing about where two texts differ. */
function equal(left: string, right: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}

/** Decides who may ask for what. */
export class Access {
  readonly #session: string;

  /** @param token undefined where the server listens to its own machine alone and asks for none */
  constructor(private readonly token: string | undefined) {
    this.#session = token === undefined
      ? ""
      : createHmac("sha256", token).update("session").digest("base64url");
  }

  get needsToken(): boolean {
    return this.token !== undefined;
  }

  /**
   * Refuses requests that another web page makes in a visitor's name.
   *
   * @throws {ServerError} `foreign_host`, `cross_origin`
   */
  checkOrigin(request: Request): void {
    const host = request.headers.get("host") ?? new URL(request.url).host;
    // Without a token, a foreign name that leads here (DNS rebinding) would open everything to a foreign page.
    if (!this.needsToken && !LOOPBACK.has(host.replace(/:\d+$/, ""))) {
      throw new ServerError(
        403,
        "foreign_host",
        `the request is for ${JSON.stringify(host.slice(0, 100))}, this server answers to localhost only`,
        "use http://localhost, or start the server with --require-token",
        "host",
      );
    }
    const origin = request.headers.get("origin");
    const isForeign = origin !== null && hostOf(origin) !== host;
    if (isForeign || request.headers.get("sec-fetch-site") === "cross-site") {
      throw new ServerError(
        403,
        "cross_origin",
        "the request comes from another web page",
        "use the server's own page, or a program",
        "origin",
      );
    }
  }

  /** @throws {ServerError} `token_missing`, `token_wrong` */
  checkToken(request: Request): void {
    if (this.token === undefined) return;
    const [, bearer] = /^Bearer\s+(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
    if (bearer !== undefined) {
      if (equal(bearer, this.token)) return;
      throw wrongToken();
    }
    const [, session] =
      new RegExp(`(?:^|;\\s*)${COOKIE}=([^;]*)`).exec(request.headers.get("cookie") ?? "") ?? [];
    if (session !== undefined && equal(session, this.#session)) return;
    throw new ServerError(
      401,
      "token_missing",
      "the server asks for a token",
      'send the header "authorization: Bearer TOKEN"; the token lies in the file token of the data folder',
      "authorization",
    );
  }

  /**
   * The cookie for a browser that knows the token.
   *
   * @throws {ServerError} `token_wrong`
   */
  openSession(token: unknown): string {
    if (this.token !== undefined && (typeof token !== "string" || !equal(token, this.token))) {
      throw wrongToken();
    }
    return `${COOKIE}=${this.#session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000`;
  }
}

function hostOf(origin: string): string | undefined {
  return URL.parse(origin)?.host;
}

function wrongToken(): ServerError {
  return new ServerError(
    401,
    "token_wrong",
    "this is not the server's token",
    "copy it from the file token of the server's data folder",
    "authorization",
  );
}
