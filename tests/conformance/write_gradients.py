"""Writes tests/fixtures/tiny-llama/gradients.safetensors: gradients at an adapter's factors, as PyTorch and PEFT have them.

    python tests/conformance/write_gradients.py        (torch, transformers, peft, safetensors; any versions of 2025 or later)

The loss looks at the residual stream after every layer and at the output of the final norm, each with the weights of `pattern`, so that
the fixture needs to hold nothing but token ids and gradients. Everything runs in float64 on the CPU.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/tiny-llama"
FIXTURES = ROOT / "tests/fixtures/tiny-llama"


def pattern(shape: torch.Size, seed: int) -> torch.Tensor:
    """sin(0.7 i + seed) over the flattened elements i."""
    count = shape.numel()
    return torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + seed).reshape(shape)


def main() -> None:
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE / "base", dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, EXAMPLE / "adapters/language", is_trainable=True).double().eval()
    decoder = model.base_model.model.model
    streams: list[torch.Tensor] = []
    for layer in decoder.layers:
        layer.register_forward_hook(
            lambda _module, _args, out: streams.append(out[0] if isinstance(out, tuple) else out)
        )
    tokens = load_file(FIXTURES / "forward.safetensors")["language.input_ids"].long().reshape(1, -1)
    output = decoder(tokens, use_cache=False).last_hidden_state
    loss = sum((stream * pattern(stream.shape, layer)).sum() for layer, stream in enumerate(streams))
    loss = loss + (output * pattern(output.shape, len(streams))).sum()
    loss.backward()
    gradients = {
        name.replace("base_model.model.", "").replace(".default.weight", ""): parameter.grad.float().contiguous()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    save_file({**gradients, "input_ids": tokens.reshape(-1).int()}, FIXTURES / "gradients.safetensors")
    print(f"{len(gradients)} gradients, loss {loss.item():.6f}")


if __name__ == "__main__":
    main()
