import { Access, isLoopback, readToken } from "./http/access.ts";
import { createApp } from "./http/app.ts";
import { listen } from "./listen.ts";
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

/** Starts a server. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? "127.0.0.1";
  const services = await openServices(options);
  try {
    return await serve(services, host, options);
  } catch (error) {
    await services.stop();
    throw error;
  }
}

async function serve(services: OpenServices, host: string, options: ServerOptions): Promise<RunningServer> {
  const needsToken = options.requireToken || !isLoopback(host);
  const { token, isNew } = needsToken
    ? await readToken(services.tokenPath)
    : { token: undefined, isNew: false };
  const app = await createApp(services, new Access(token));
  const { limits } = services;
  const listening = await listen((request) => app.fetch(request), {
    host,
    port: options.port ?? 8420,
    limits,
  });
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${listening.port}`,
    token,
    isNewToken: isNew,
    services,
    async stop() {
      listening.close();
      await services.stop();
      listening.endAll();
    },
  };
}
