import { gatherRows } from "@lora-loom/model";
import { sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { batchesOf } from "./minibatch.ts";
import type { RefineRequest } from "./request.ts";
import type { Teachers } from "./teachers.ts";

/**
 * ν_l: the mean ‖h_l‖² over the answers of the first minibatch, or over all of its rows where none has an answer and in an encoder's
 * layers, which read none.
 */
export async function streamSizes(request: RefineRequest, teachers: Teachers): Promise<number[]> {
  const { layerReads } = request.model;
  const sums = layerReads.map(() => 0), rows = layerReads.map(() => 0);
  const batches = batchesOf(request, 1);
  const hasAnswers = batches.some(({ answerRows }) => answerRows.length > 0);
  for (const { members, answerRows } of batches) {
    const streams = teachers.streams(members);
    for (const [layer, stream] of streams.entries()) {
      const chosen = hasAnswers && layerReads[layer] === layerReads.at(-1) ? answerRows : undefined;
      rows[layer]! += chosen?.length ?? stream.shape[0]!;
      sums[layer]! += await squares(stream, chosen);
      stream.dispose();
    }
  }
  return sums.map((sum, layer) => sum / rows[layer]!);
}

/** Σ ‖row‖² over the given rows. */
async function squares(stream: Tensor, rows: Uint32Array | undefined): Promise<number> {
  if (rows?.length === 0) return 0;
  using ids = rows && stream.device.upload(rows, [rows.length], "u32");
  using chosen = ids && gatherRows(stream, ids);
  using sum = sumOfSquares(chosen ?? stream);
  return (await stream.device.download(sum))[0]!;
}
