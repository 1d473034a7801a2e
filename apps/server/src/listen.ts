import type { AddressInfo, Socket } from "node:net";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { createAdaptorServer } from "@hono/node-server";
import { type PublicError, ServerError } from "./errors.ts";
import type { Limits } from "./limits.ts";

/** Milliseconds for which the rest of a request that is refused unread is let run dry. */
const LINGER = 2000;

/** Where to listen, and how patient to be with clients. */
export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  readonly limits: Pick<Limits, "idleSeconds" | "uploadSeconds" | "httpHeaderBytes" | "connections">;
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

/**
 * Listens. A client that does not get its request line and headers over in time is cut off, and so is one that keeps a
 * connection without using it, or does not take what it asked for; bodies have their own limits, which know what is
 * uploaded.
 *
 * @throws {ServerError} `port_in_use`, `port_refused`, `host_unknown`, `host_elsewhere`; {Error} of the system otherwise
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
      maxHeaderSize: limits.httpHeaderBytes,
    },
  }) as Server;
  server.maxConnections = limits.connections;
  const waiting = waitingSockets(server);
  cutOffIdle(server, idle, waiting);
  answerUnreadable(server, waiting);
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(cannotListen(error, host, port)));
    server.listen(port, host, () => {
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => server.close(),
        endAll: () => server.closeAllConnections(),
      });
    });
  });
}

/** What is wrong with where to listen, as far as the system says it; else the system's own error. */
function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const elsewhere =
    "write --host 127.0.0.1 for this machine alone, or --host 0.0.0.0 for all of its addresses";
  const refusal = (code: string, message: string, fix: string, where: string) =>
    new ServerError(400, code, message, fix, where);
  switch (error.code) {
    case "EADDRINUSE":
      return refusal(
        "port_in_use",
        `another program listens on port ${port} of ${host}`,
        "stop it, or write --port 0 for a free port",
        "--port",
      );
    case "EACCES":
      return refusal(
        "port_refused",
        `the system does not let this user listen on port ${port} of ${host}`,
        "write --port 8420: ports below 1024 are often for administrators alone",
        "--port",
      );
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return refusal(
        "host_unknown",
        `there is no machine ${JSON.stringify(host)}; expected an address of this machine`,
        elsewhere,
        "--host",
      );
    case "EADDRNOTAVAIL":
    // Some systems call it so.
    case "EINVAL":
      return refusal(
        "host_elsewhere",
        `${JSON.stringify(host)} is no address of this machine`,
        elsewhere,
        "--host",
      );
    default:
      return error;
  }
}

/** The sockets whose request is being answered. */
function waitingSockets(server: Server): WeakSet<Duplex> {
  const waiting = new WeakSet<Duplex>();
  server.on("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    waiting.add(socket);
    response.once("close", () => waiting.delete(socket));
  });
  return waiting;
}

/**
 * Ends connections on which nothing moves for twice so many milliseconds. One that waits for its answer may be quiet, for the
 * answer can take its time; one that has an answer to take may not.
 */
function cutOffIdle(server: Server, milliseconds: number, waiting: WeakSet<Duplex>): void {
  // Later than the other limits, whose clients are told why.
  server.timeout = 2 * milliseconds;
  server.on("timeout", (socket: Socket) => {
    if (!waiting.has(socket) || socket.writableLength > 0) socket.destroy();
  });
}

/** What is said of a request that could not be read as one. */
interface Unreadable {
  readonly status: string;
  readonly error: PublicError;
}

const MALFORMED: Unreadable = {
  status: "400 Bad Request",
  error: {
    code: "malformed_request",
    message: "this is no HTTP request",
    fix: "send HTTP/1.1, as browsers and curl do",
    where: "",
  },
};
const UNREADABLE: Readonly<Record<string, Unreadable>> = {
  HPE_HEADER_OVERFLOW: {
    status: "431 Request Header Fields Too Large",
    error: {
      code: "headers_too_large",
      message: "the headers of the request are larger than the server takes",
      fix: "send fewer or shorter headers; the server's limit is --limit httpHeaderBytes=N",
      where: "headers",
    },
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: "408 Request Timeout",
    error: {
      code: "request_stalled",
      message: "the request did not arrive in time",
      fix: "send it again over a faster connection",
      where: "",
    },
  },
};

/** Requests that never become one still get an answer in the form of all errors. */
function answerUnreadable(server: Server, waiting: WeakSet<Duplex>): void {
  server.on("clientError", ({ code = "" }: NodeJS.ErrnoException, socket: Duplex) => {
    // What follows half an answer would be read as part of it.
    if (!socket.writable || waiting.has(socket)) return socket.destroy();
    const { status, error } = UNREADABLE[code] ?? MALFORMED;
    const body = JSON.stringify({ error });
    socket.end(
      `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\n` +
        `content-length: ${new TextEncoder().encode(body).length}\r\n\r\n${body}`,
    );
    // A connection that is closed with something unread takes the answer along.
    socket.resume();
    const linger = setTimeout(() => socket.destroy(), LINGER);
    socket.once("close", () => clearTimeout(linger));
  });
}
