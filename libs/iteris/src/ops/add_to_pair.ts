export { addToPair } from "@lora-loom/tensor";
