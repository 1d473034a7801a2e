import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { htmlReport } from "./html.ts";
import { modelCard } from "./model_card.ts";
import { type MergeRecord, recordText } from "./record.ts";

/** Writes `loom.json`, `README.md` and `report.html` into a folder that exists. */
export async function writeReports(directory: string, record: MergeRecord): Promise<void> {
  await writeFile(join(directory, "loom.json"), recordText(record, record.recipe.output.path));
  await writeFile(join(directory, "README.md"), modelCard(record));
  await writeFile(join(directory, "report.html"), htmlReport(record));
}
