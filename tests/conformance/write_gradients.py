"""Writes tests/fixtures/*/gradients.safetensors: gradients at an adapter's factors, as PyTorch and PEFT have them.

    python tests/conformance/write_gradients.py [tiny-llama] [tiny-t5]
                                           (torch, transformers, peft, safetensors; any versions of 2025 or later)

The loss looks at the residual stream after every layer (in a T5 the encoder's, then the decoder's) and at the output of the final norm, each
with the weights of `pattern`, so that the fixture needs to hold nothing but token ids and gradients. A T5's decoder reads the start token
and `ANSWER`. Everything runs in float64 on the CPU; a Llama's norms and softmax in float32, as Transformers has them whatever the weights are.
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.t5.modeling_t5 import T5LayerNorm

ROOT = Path(__file__).resolve().parents[2]
ANSWER = [5, 70, 800, 2]


def pattern(shape: torch.Size, seed: int) -> torch.Tensor:
    """sin(0.7 i + seed) over the flattened elements i."""
    count = shape.numel()
    return torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + seed).reshape(shape)


def keep_float64() -> None:
    """Makes a T5 compute norms and softmax in its weights' precision: some of its gradients nearly cancel."""
    T5LayerNorm.forward = lambda self, x: (
        self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    )
    torch.Tensor.float = torch.Tensor.double


def watch(layers: torch.nn.ModuleList, streams: list[torch.Tensor]) -> None:
    """Collects what each layer gives when it runs."""
    for layer in layers:
        layer.register_forward_hook(
            lambda _module, _args, out: streams.append(out[0] if isinstance(out, tuple) else out)
        )


def write(example: str) -> None:
    folder, fixtures = ROOT / "examples" / example, ROOT / "tests/fixtures" / example
    is_t5 = "t5" in example
    auto = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    model = auto.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, folder / "adapters/language", is_trainable=True).double().eval()
    inner = model.base_model.model
    tokens = load_file(fixtures / "forward.safetensors")["language.input_ids"].long().reshape(1, -1)
    ids = {"input_ids": tokens.reshape(-1).int()}
    streams: list[torch.Tensor] = []
    if is_t5:
        keep_float64()
        watch(inner.encoder.block, streams)
        watch(inner.decoder.block, streams)
        encoded = inner.encoder(tokens).last_hidden_state
        read = torch.tensor([[inner.config.decoder_start_token_id, *ANSWER]])
        output = inner.decoder(read, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        ids["answer_ids"] = torch.tensor(ANSWER).int()
    else:
        watch(inner.model.layers, streams)
        output = inner.model(tokens, use_cache=False).last_hidden_state
    loss = sum((stream * pattern(stream.shape, layer)).sum() for layer, stream in enumerate(streams))
    loss = loss + (output * pattern(output.shape, len(streams))).sum()
    loss.backward()
    gradients = {
        name.replace("base_model.model.", "").replace(".default.weight", ""): parameter.grad.to(torch.float32).contiguous()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    save_file({**gradients, **ids}, fixtures / "gradients.safetensors")
    print(f"{example}: {len(streams)} streams, {len(gradients)} gradients, loss {loss.item():.6f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["tiny-llama", "tiny-t5"]:
        write(name)
