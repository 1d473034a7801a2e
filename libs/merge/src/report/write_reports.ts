import { join } from "node:path";
import { writeFileAtomic } from "@lora-loom/formats";
import { htmlReport } from "./html.ts";
import { modelCard } from "./model_card.ts";
import { type MergeRecord, recordText } from "./record.ts";

/** Writes `loom.json`, `README.md` and `report.html` into a folder that exists. */
export async function writeReports(directory: string, record: MergeRecord): Promise<void> {
  await writeFileAtomic(join(directory, "loom.json"), recordText(record, record.recipe.output.path));
  await writeFileAtomic(join(directory, "README.md"), modelCard(record));
  await writeFileAtomic(join(directory, "report.html"), htmlReport(record));
}
