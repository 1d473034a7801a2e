import { assertEquals } from "@std/assert";
import { CommandQueue } from "./command_queue.ts";

/** A queue on a device that only counts the dispatches of each submission. */
function countingQueue(): { queue: CommandQueue; submissions: number[] } {
  const submissions: number[] = [];
  let recorded = 0;
  const pass = {
    setPipeline: () => {},
    setBindGroup: () => {},
    dispatchWorkgroups: () => recorded++,
    end: () => {},
  };
  const device = {
    createBuffer: () => ({}),
    createCommandEncoder: () => ({ beginComputePass: () => pass, finish: () => ({}) }),
    queue: {
      writeBuffer: () => {},
      submit: () => {
        submissions.push(recorded);
        recorded = 0;
      },
    },
  } as unknown as GPUDevice;
  return { queue: new CommandQueue(device, { UNIFORM: 0, COPY_DST: 0 }), submissions };
}

function dispatch(queue: CommandQueue, times: number): void {
  const [pipeline, group] = [{} as GPUComputePipeline, {} as GPUBindGroup];
  for (let i = 0; i < times; i++) queue.dispatch(pipeline, group, new ArrayBuffer(16), [1, 1, 1]);
}

Deno.test("CommandQueue submits few dispatches at first, so that an idle GPU starts early, and then more", () => {
  const { queue, submissions } = countingQueue();
  dispatch(queue, 8 + 16 + 32 + 64 + 64 + 3);
  assertEquals(submissions, [8, 16, 32, 64, 64]);
});

Deno.test("CommandQueue starts with few dispatches again after a submission that was asked for", () => {
  const { queue, submissions } = countingQueue();
  dispatch(queue, 30);
  queue.submit();
  queue.submit();
  dispatch(queue, 9);
  assertEquals(submissions, [8, 16, 6, 8]);
});
