import { assertEquals } from "@std/assert";

const PROGRAM = `
  for (const name of ["SIGINT", "SIGTERM"]) {
    Deno.addSignalListener(name, () => setTimeout(() => { console.log("ended by " + name); Deno.exit(7); }, 200));
  }
  console.log("ready");
  setInterval(() => {}, 1000);
`;

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`run_deno.cjs passes ${signal} on, and ends with the command and its exit status`, async () => {
    const child = new Deno.Command("node", {
      args: ["tools/setup/run_deno.cjs", "eval", PROGRAM],
      cwd: new URL("../../", import.meta.url),
      stdin: "null",
      stdout: "piped",
    }).spawn();
    let text = "";
    let sent = false;
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (sent || !text.includes("ready")) continue;
      child.kill(signal);
      sent = true;
    }
    assertEquals(text, `ready\nended by ${signal}\n`);
    assertEquals((await child.status).code, 7);
  });
}
