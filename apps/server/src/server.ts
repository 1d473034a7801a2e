import { Access, isLoopback, readToken } from "./http/access.ts";
import { createApp } from "./http/app.ts";
import { DEFAULT_LIMITS, type Limits } from "./limits.ts";
import { listen, type Listening } from "./listen.ts";
import { type OpenServices, openServices, type ServiceOptions } from "./open_services.ts";

/** Where and how a server listens. */
export interface ServerOptions extends ServiceOptions {
  /** Default 127.0.0.1. On any other address than the machine's own, a token is required. */
  readonly host?: string;
  /** Default 8420; 0 takes a free one. */
  readonly port?: number;
  /** Asks for a token on the machine's own address too. */
  readonly requireToken?: boolean;
}

/** A server that listens. */
export interface RunningServer {
  /** Where it is, such as `http://127.0.0.1:8420`. */
  readonly url: string;
  /** Undefined where none is asked for. */
  readonly token: string | undefined;
  /** Whether the token was made just now. */
  readonly isNewToken: boolean;
  readonly services: OpenServices;
  /** Stops listening, puts running merges back into the queue and lets go of everything. */
  stop(): Promise<void>;
}

/**
 * Starts a server. It takes its port before it opens the data folder, so that a start that cannot listen leaves nothing
 * behind; requests that come in between wait.
 *
 * @throws {ServerError} as {@linkcode listen} and {@linkcode openServices}
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? "127.0.0.1";
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const app = Promise.withResolvers<Awaited<ReturnType<typeof createApp>>>();
  const listening = await listen(async (request) => (await app.promise).fetch(request), {
    host,
    port: options.port ?? 8420,
    limits,
  });
  try {
    const services = await openServices(options);
    try {
      const needsToken = options.requireToken || !isLoopback(host);
      const { token, isNew } = needsToken
        ? await readToken(services.tokenPath)
        : { token: undefined, isNew: false };
      app.resolve(await createApp(services, new Access(token)));
      return running(services, listening, host, token, isNew);
    } catch (error) {
      await services.stop();
      throw error;
    }
  } catch (error) {
    listening.close();
    listening.endAll();
    throw error;
  }
}

function running(
  services: OpenServices,
  listening: Listening,
  host: string,
  token: string | undefined,
  isNewToken: boolean,
): RunningServer {
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${listening.port}`,
    token,
    isNewToken,
    services,
    async stop() {
      listening.close();
      await services.stop();
      listening.endAll();
    },
  };
}
