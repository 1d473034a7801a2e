import { ServerError } from "../errors.ts";

/** How long a body may take. */
export interface BodyTimes {
  /** Longest pause between two chunks. */
  readonly idleSeconds: number;
  /** Longest time in all. */
  readonly uploadSeconds: number;
}

function stalled(seconds: number, what: string): ServerError {
  return new ServerError(
    408,
    "upload_stalled",
    `the upload ${what} ${seconds} seconds`,
    "send it again over a faster connection",
    "body",
  );
}

/**
 * The chunks of a request's body, from a client that must not stand still.
 *
 * @throws {ServerError} `missing_body`, `upload_stalled`, `upload_aborted`
 */
export async function* bodyChunks(request: Request, times: BodyTimes): AsyncGenerator<Uint8Array> {
  if (!request.body) {
    throw new ServerError(
      400,
      "missing_body",
      "the request has no body",
      "send the file as the body",
      "body",
    );
  }
  const reader = request.body.getReader();
  const deadline = performance.now() + times.uploadSeconds * 1000;
  try {
    while (true) {
      const left = deadline - performance.now();
      const { done, value } = await withTimeout(reader.read(), times, left);
      if (done) return;
      yield value;
    }
  } finally {
    // What the client still sends is nobody's business any more.
    await reader.cancel().catch(() => {});
  }
}

async function withTimeout<T>(work: Promise<T>, times: BodyTimes, left: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const idle = times.idleSeconds * 1000;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          left < idle
            ? stalled(times.uploadSeconds, "took longer than")
            : stalled(times.idleSeconds, "stood still for"),
        ),
      Math.max(0, Math.min(idle, left)),
    );
  });
  try {
    return await Promise.race([work.catch((error) => Promise.reject(aborted(error))), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function aborted(error: unknown): ServerError {
  const detail = error instanceof Error ? error.message : String(error);
  return new ServerError(400, "upload_aborted", `the upload ended early: ${detail}`, "send it again", "body");
}

/**
 * Reads a whole JSON body of bounded size.
 *
 * @throws {ServerError} `wrong_type`, `request_too_large`, `malformed_json`, and those of {@linkcode bodyChunks}
 */
export async function readJson(request: Request, limit: number, times: BodyTimes): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(?:;|$)/i.test(type)) {
    throw new ServerError(
      415,
      "wrong_type",
      `the body is ${type ? JSON.stringify(type) : "of no declared type"}, expected application/json`,
      'send it with the header "content-type: application/json"',
      "content-type",
    );
  }
  const text = new TextDecoder().decode(await readAll(bodyChunks(request, times), limit));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ServerError(
      400,
      "malformed_json",
      `not valid JSON: ${(error as Error).message}`,
      "correct it",
      "body",
    );
  }
}

/** Collects chunks up to a limit. */
export async function readAll(
  chunks: AsyncIterable<Uint8Array>,
  limit: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > limit) {
      const message = `the request is larger than the ${limit} bytes that are taken`;
      throw new ServerError(413, "request_too_large", message, "send less at once", "body");
    }
    parts.push(chunk);
  }
  const whole = new Uint8Array(bytes);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
