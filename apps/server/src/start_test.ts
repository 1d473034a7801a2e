/** Starts that fail: what is said, and what is left behind. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { unusableData } from "./data/folder.ts";
import { ServerError } from "./errors.ts";
import { type ServerOptions, startServer } from "./server.ts";
import { repositoryPath, withFolder } from "./test_support/server.ts";

/** How a start is refused. */
function refusal(options: ServerOptions): Promise<ServerError> {
  return assertRejects(() => startServer({ port: 0, device: "cpu", ...options }), ServerError);
}

Deno.test("startServer() says why a path cannot be the data folder", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/recipe.yaml`, "method: lego\n");
    await Deno.mkdir(`${folder}/odd`);
    await Deno.writeTextFile(`${folder}/odd/loom.sqlite`, "no database, but long enough to be read as one\n");
    for (
      const [data, reason] of [
        [`${folder}/recipe.yaml`, "it is a file"],
        [`${folder}/recipe.yaml/below`, "a part of the path is a file"],
        ["/proc/sd3", "nothing can be made there"],
        [`${folder}/odd`, "file is not a database"],
      ] as const
    ) {
      const error = await refusal({ data });
      assertEquals([error.code, error.where, error.status], ["data_unusable", data, 400]);
      assertStringIncludes(error.message, reason);
      assertStringIncludes(error.fix, "--data");
    }
  }));

Deno.test("unusableData() says that this user may not write there, and leaves what it does not know", () => {
  const denied = Object.assign(new Deno.errors.PermissionDenied("Permission denied"), { code: "EACCES" });
  const error = unusableData("/data", denied) as ServerError;
  assertEquals([error.code, error.where], ["data_unusable", "/data"]);
  assertStringIncludes(error.message, "this user may not write there");
  const other = new Error("something else");
  assertEquals(unusableData("/data", other), other);
});

Deno.test("startServer() says that there is no such machine, or that it is another", () =>
  withFolder(async (folder) => {
    // 192.0.2.0/24 is kept for documentation: no machine has an address of it.
    for (const [host, code] of [["nosuchhost.invalid", "host_unknown"], ["192.0.2.1", "host_elsewhere"]]) {
      const error = await refusal({ data: `${folder}/data`, host: host! });
      assertEquals([error.code, error.where, error.status], [code, "--host", 400]);
      assertStringIncludes(error.message, host!);
    }
    assertEquals([...Deno.readDirSync(folder)], []);
  }));

Deno.test("startServer() says why a path cannot be the models' folder, and makes nothing", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/recipe.yaml`, "method: lego\n");
    for (
      const [name, reason] of [["nodir", "there is nothing of that name"], ["recipe.yaml", "it is a file"]]
    ) {
      const models = `${folder}/${name}`;
      const error = await refusal({ data: `${folder}/data`, models });
      assertEquals([error.code, error.where, error.status], ["models_unusable", models, 400]);
      assertStringIncludes(error.message, reason!);
      assertStringIncludes(error.fix, "--models DIR");
    }
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["recipe.yaml"]);
  }));

Deno.test("startServer() lets go of its port when it cannot open its data folder", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const free = await startServer({ data: `${folder}/data`, port: 0, device: "cpu" });
    const port = Number(new URL(free.url).port);
    await free.stop();
    assertEquals((await refusal({ data: `${folder}/file`, port })).code, "data_unusable");
    await (await startServer({ data: `${folder}/data`, port, device: "cpu" })).stop();
  }));

Deno.test("serve ends with status 2 and without a stack trace when it is told to start where it cannot", async () => {
  const main = repositoryPath("apps/server/src/main.ts");
  const args = ["run", "-A", main, "--port", "0", "--data", main];
  const { code, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: repositoryPath("") })
    .output();
  const text = new TextDecoder().decode(stderr);
  assertEquals(code, 2, text);
  assertStringIncludes(text, `error[data_unusable]: ${main} cannot be the data folder: it is a file`);
  assertStringIncludes(text, `\n  where: ${main}\n  fix:   name another folder`);
  assert(!text.includes("    at "), text);
});
