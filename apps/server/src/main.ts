/** The server's command line: `main.ts [--host 127.0.0.1] [--port 8420] [--data DIR] [--models DIR] …`. */
import { parseArgs } from "@std/cli/parse-args";
import { DEVICE_CHOICES, type DeviceChoice, didYouMean } from "@lora-loom/merge";
import { describeFailure, ServerError } from "./errors.ts";
import { DEFAULT_LIMITS, LIMIT_HELP, type Limits } from "./limits.ts";
import { type RunningServer, type ServerOptions, startServer } from "./server.ts";

const FLAGS: readonly (readonly [form: string, help: string])[] = [
  [
    "--host ADDRESS",
    "where to listen; default 127.0.0.1, this machine alone; any other address asks for a token",
  ],
  ["--port N", "default 8420; 0 takes a free one"],
  ["--data DIR", "where everything is kept; default .loom-data"],
  ["--models DIR", "a folder of Hugging Face model folders, for methods that run the base model"],
  ["--device DEVICE", `where to compute: ${DEVICE_CHOICES.join(", ")}`],
  ["--require-token", "ask for a token on this machine's own address too"],
  ["--limit NAME=N", "change a limit; may be repeated"],
  ["--help", "show this help"],
];

function helpText(): string {
  const limits = Object.entries(LIMIT_HELP).map(([name, help]) =>
    `  ${name.padEnd(18)}${help}; default ${DEFAULT_LIMITS[name as keyof Limits]}`
  );
  return [
    "Serves merging by HTTP and as a web page.",
    "",
    "usage: deno task serve [flags]",
    "",
    "flags:",
    ...FLAGS.map(([form, help]) => `  ${form.padEnd(18)}${help}`),
    "",
    "limits:",
    ...limits,
  ].join("\n");
}

function wrongFlag(message: string, fix: string, where: string): ServerError {
  return new ServerError(400, "flag_value", message, fix, where);
}

function wholeNumber(text: string, where: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isSafeInteger(value) && value >= 0) return value;
  throw wrongFlag(
    `${where} takes a whole number, found ${JSON.stringify(text)}`,
    `write ${where} 100`,
    where,
  );
}

function readLimits(settings: readonly string[]): Partial<Limits> {
  const known = Object.keys(DEFAULT_LIMITS);
  return Object.fromEntries(settings.map((setting) => {
    const [name = "", text = ""] = setting.split("=");
    if (known.includes(name)) return [name, wholeNumber(text, `--limit ${name}`)];
    throw wrongFlag(
      `there is no limit ${JSON.stringify(name)}; ${didYouMean(name, known)}`,
      "see --help",
      "--limit",
    );
  }));
}

/** Reads the command line; undefined where only help was asked for. */
export function readOptions(args: readonly string[]): ServerOptions | undefined {
  const names = FLAGS.map(([form]) => form.split(" ")[0]!);
  const flags = parseArgs([...args], {
    string: ["host", "port", "data", "models", "device", "limit"],
    boolean: ["help", "require-token"],
    collect: ["limit"],
    alias: { help: "h" },
    unknown(argument: string) {
      throw wrongFlag(`serve has no ${argument}; ${didYouMean(argument, names)}`, "see --help", argument);
    },
  }) as unknown as Record<string, string | undefined> & { limit: string[]; help: boolean };
  if (flags.help) return undefined;
  const { host, port, data, models, device } = flags;
  if (device !== undefined && !DEVICE_CHOICES.includes(device as DeviceChoice)) {
    throw wrongFlag(`--device takes ${DEVICE_CHOICES.join(", ")}`, "write --device auto", "--device");
  }
  return {
    data: data || ".loom-data",
    ...(host ? { host } : {}),
    ...(port === undefined ? {} : { port: wholeNumber(port, "--port") }),
    ...(models ? { models } : {}),
    ...(device === undefined ? {} : { device: device as DeviceChoice }),
    requireToken: Boolean(flags["require-token"]),
    limits: readLimits(flags.limit ?? []),
  };
}

/** An address that a browser can open: every address of a machine is none, its name is one. */
function reachable(url: string): string {
  const { port } = new URL(url);
  return /\/\/(?:0\.0\.0\.0|\[::\]):/.test(url) ? `http://${Deno.hostname()}:${port}` : url;
}

function announce({ url, token, isNewToken }: RunningServer): void {
  console.log(`LoRA Loom serves at ${url}`);
  if (token === undefined) return;
  // Once only: logs are read by others too.
  if (isNewToken) {
    console.log(`its token, which is kept in the data folder: ${token}`);
    console.log(`open ${reachable(url)}/#token=${token}`);
  } else console.log("its token lies in the file token of the data folder");
}

async function main(): Promise<number> {
  try {
    const options = readOptions(Deno.args);
    if (!options) {
      console.log(helpText());
      return 0;
    }
    const server = await startServer(options);
    announce(server);
    await new Promise<void>((resolve) => {
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
        Deno.addSignalListener(signal, () => resolve());
      }
    });
    await server.stop();
    return 0;
  } catch (error) {
    if ((error as { code?: unknown }).code === "EADDRINUSE") {
      console.error("error[port_in_use]: another program listens there\n  fix:   choose another --port");
      return 2;
    }
    const { error: { code, message, fix } } = describeFailure(error);
    console.error(`error[${code}]: ${message}\n  fix:   ${fix}`);
    if (code === "internal") console.error(error);
    return error instanceof ServerError && error.status < 500 ? 2 : 1;
  }
}

if (import.meta.main) Deno.exit(await main());
