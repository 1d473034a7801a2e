import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { ROOT } from "./house/workspace.ts";

for (const tool of ["test", "tune", "bench"]) {
  for (const option of ["--help", "-h", "--nosuch"]) {
    Deno.test(`${tool} starts nothing when it is given the unknown option ${option}`, async () => {
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", join(ROOT, `tools/${tool}/main.ts`), option],
      }).output();
      assertEquals([code, stdout.length], [2, 0]);
      assertStringIncludes(new TextDecoder().decode(stderr), `there is no option ${option}`);
    });
  }
}
