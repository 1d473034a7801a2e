import { assertEquals } from "@std/assert";

Deno.test("withoutDawnNoise() leaves out two warnings and passes everything else on", async () => {
  const program = `
    import { withoutDawnNoise } from ${JSON.stringify(new URL("quiet_stderr.ts", import.meta.url).href)};
    const print = (text) => Deno.stderr.writeSync(new TextEncoder().encode(text));
    const result = withoutDawnNoise(() => {
      print("Warning: maxDynamicUniformBuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit.\\n");
      print("Warning: something else\\n");
      print("Warning: maxDynamicStorageBuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit.\\n");
      return 42;
    });
    print("after " + result + "\\n");
    try { withoutDawnNoise(() => { throw new Error("inside"); }); } catch (error) { print(error.message + "\\n"); }
  `;
  const { stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program], stderr: "piped" })
    .output();
  assertEquals(new TextDecoder().decode(stderr), "Warning: something else\nafter 42\ninside\n");
});
