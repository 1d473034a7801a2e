import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { HOUSE } from "./arrows.ts";
import { drawHouse } from "./drawing.ts";

Deno.test("drawHouse() draws every room and an arrow for each import that is allowed", () => {
  const svg = drawHouse(HOUSE);
  for (const { path } of HOUSE.rooms) assertStringIncludes(svg, `>${path}</text>`);
  // tools/std and the wall around the libraries from each app; merge: 5, model: 2, lego, iteris and testing: 1 each.
  assertEquals(svg.match(/<path class="arrow"/g)?.length, 2 * 2 + 5 + 2 + 3);
});

Deno.test("drawHouse() refuses a room that has no place", () => {
  const rooms = [{ path: "libs/cellar", purpose: "", mayImport: [] }];
  assertThrows(() => drawHouse({ ...HOUSE, rooms }), Error, "libs/cellar has no place in the picture");
});
