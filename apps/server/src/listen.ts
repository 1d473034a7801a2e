import type { AddressInfo, Socket } from "node:net";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import type { Limits } from "./limits.ts";

/** Where to listen, and how patient to be with clients. */
export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  readonly limits: Pick<Limits, "idleSeconds" | "uploadSeconds">;
}

/** A socket that is open. */
export interface Listening {
  readonly port: number;
  /** Takes no more connections; answers that are on their way may end. */
  close(): void;
  /** Ends every connection. */
  endAll(): void;
}

/** Most milliseconds between looks at who is too slow. */
const CHECK_INTERVAL = 5000;
/** Bytes of all headers of a request. */
const MAX_HEADER_BYTES = 32 * 1024;

/**
 * Listens. A client that does not get its request line and headers over in time is cut off, and so is one that keeps a
 * connection without using it, or does not take what it asked for; bodies have their own limits, which know what is
 * uploaded.
 *
 * @throws {Error} of the system, such as `EADDRINUSE`
 */
export function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  { host, port, limits }: ListenOptions,
): Promise<Listening> {
  const idle = 1000 * limits.idleSeconds;
  const server = createAdaptorServer({
    fetch,
    overrideGlobalObjects: false,
    serverOptions: {
      headersTimeout: idle,
      keepAliveTimeout: idle,
      requestTimeout: 1000 * limits.uploadSeconds,
      connectionsCheckingInterval: Math.min(CHECK_INTERVAL, idle),
      maxHeaderSize: MAX_HEADER_BYTES,
    },
  }) as Server;
  cutOffIdle(server, idle);
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => server.close(),
        endAll: () => server.closeAllConnections(),
      });
    });
  });
}

/**
 * Ends connections on which nothing moves for so many milliseconds. One that waits for its answer may be quiet, for the
 * answer can take its time; one that has an answer to take may not.
 */
function cutOffIdle(server: Server, milliseconds: number): void {
  const waiting = new WeakSet<Socket>();
  server.timeout = milliseconds;
  server.on("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    waiting.add(socket);
    response.once("close", () => waiting.delete(socket));
  });
  server.on("timeout", (socket: Socket) => {
    if (!waiting.has(socket) || socket.writableLength > 0) socket.destroy();
  });
}
