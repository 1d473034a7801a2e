import { fromFileUrl } from "./paths.ts";

const MAIN = fromFileUrl(new URL("../../apps/server/src/main.ts", import.meta.url));

/** A server in a process of its own. */
export interface ServerProcess {
  readonly url: string;
  /** Ends it at once, as a power failure would. */
  kill(): Promise<void>;
  /** Asks it to end, and waits until it has; the result is its exit status. */
  stop(): Promise<number>;
}

/** Reads the first line that `pattern` matches from a process's output, and lets the rest run dry. */
async function firstMatch(output: ReadableStream<Uint8Array>, pattern: RegExp): Promise<string | undefined> {
  const decoder = new TextDecoder();
  const reader = output.getReader();
  let text = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    text += decoder.decode(value, { stream: true });
    const [, found] = pattern.exec(text) ?? [];
    if (found === undefined) continue;
    (async () => {
      while (!(await reader.read()).done);
    })();
    return found;
  }
}

/** Starts a server as a user does, and waits until it listens. */
export async function startServerProcess(data: string, args: readonly string[] = []): Promise<ServerProcess> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", MAIN, "--port", "0", "--data", data, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const errors = new Response(child.stderr).text();
  const url = await firstMatch(child.stdout, /serves at (http:\S+)/);
  if (url === undefined) throw new Error(`the server did not start: ${await errors}`);
  const end = async (signal: Deno.Signal) => {
    child.kill(signal);
    const { code } = await child.status;
    await errors;
    return code;
  };
  return {
    url,
    stop: () => end("SIGTERM"),
    async kill() {
      await end("SIGKILL");
    },
  };
}
