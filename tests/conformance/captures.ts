/**
 * Runs the example of docs/captures.md with PyTorch on the example model, merges what it recorded, and compares the outputs of every
 * module with those of IterIS's first solve on the model itself. Needs a Python with torch, transformers and peft:
 *
 *     deno run -A tests/conformance/captures.ts --python PYTHON
 */
import { parseArgs } from "@std/cli/parse-args";
import { denseDeltas } from "../support/adapters.ts";
import { type HostMatrix, largestOutputDifference, recordInputs } from "../support/captures.ts";
import { runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const TASKS = ["language", "category"];
const SAMPLES = 20;
const LARGEST_DIFFERENCE = 1e-5;

const { python } = parseArgs(Deno.args, { string: ["python"], default: { python: "python3" } });

async function exampleOfPage(): Promise<string> {
  const page = await Deno.readTextFile(repositoryPath("docs/captures.md"));
  return /```python\n([\s\S]*?)```/.exec(page)![1]!;
}

async function record(folder: string, task: string): Promise<void> {
  const args = [
    `${folder}/record.py`,
    `${EXAMPLE}/base`,
    `${EXAMPLE}/adapters/${task}`,
    `${folder}/${task}.jsonl`,
    `${folder}/${task}.npz`,
  ];
  const { code, stderr } = await new Deno.Command(python, { args, stdout: "null", stderr: "piped" }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
}

async function textsOf(task: string): Promise<string[]> {
  const rows = (await Deno.readTextFile(`${EXAMPLE}/tasks/${task}.train.jsonl`)).split("\n").slice(
    0,
    SAMPLES,
  );
  return rows.map((row) => {
    const { prompt, completion } = JSON.parse(row) as { prompt: string; completion: string };
    return prompt + completion;
  });
}

/** The two recipes differ in what they know of the inputs alone. */
function recipe(kind: "calibration" | "capture", extension: string, parameters: string): string {
  const adapters = TASKS.map((task) =>
    `  - { path: ${EXAMPLE}/adapters/${task}, ${kind}: ${task}.${extension} }`
  );
  return `method: iteris\nbase_model: ${EXAMPLE}/base\nadapters:\n${adapters.join("\n")}\n` +
    `parameters: { ${parameters} }\noutput: { path: ${kind} }\ndevice: cpu\n`;
}

async function merge(folder: string, name: string, text: string) {
  await Deno.writeTextFile(`${folder}/${name}.yaml`, text);
  await runJson(["merge", `${folder}/${name}.yaml`]);
  return await denseDeltas(`${folder}/${name}`);
}

await withFolder(async (folder) => {
  await Deno.writeTextFile(`${folder}/record.py`, await exampleOfPage());
  const inputs: ReadonlyMap<string, HostMatrix>[] = [];
  for (const task of TASKS) {
    const texts = await textsOf(task);
    await Deno.writeTextFile(
      `${folder}/${task}.jsonl`,
      texts.map((text) => JSON.stringify({ text })).join("\n"),
    );
    await record(folder, task);
    inputs.push(await recordInputs(`${EXAMPLE}/base`, `${EXAMPLE}/adapters/${task}`, texts));
  }
  const native = `samples: ${SAMPLES}, agreement_prompts: 0, schedule: jacobi, iterations: 1`;
  const expected = await merge(folder, "calibration", recipe("calibration", "jsonl", native));
  const found = await merge(folder, "capture", recipe("capture", "npz", ""));
  const largest = largestOutputDifference(found, expected, inputs);
  console.log(`${found.size} modules; outputs differ by at most ${largest.toExponential(1)}`);
  if (!(largest < LARGEST_DIFFERENCE)) Deno.exit(1);
});
