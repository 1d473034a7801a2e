"""Loads merged adapters into PEFT and runs a forward pass: what a server or a notebook would do with them.

Not part of the test suite (the project needs no Python): run it where PyTorch, Transformers and PEFT are installed.

    python tests/conformance/peft_load.py --base examples/tiny-llama/base ADAPTER [ADAPTER ...] [--expect-sum SOURCE ...]

For every adapter it prints PEFT's version, the number of modules that took a delta, and the largest difference between
PEFT's logits and those of the base with the deltas added to its weights by hand, in float64. With --expect-sum the first
adapter is also compared, delta by delta, with the sum of the given source adapters as PEFT itself scales them.
Exit status 1 when anything does not fit.
"""

import argparse
import json
import pathlib
import sys

import peft
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def deltas(folder):
    """module name -> dense delta in float64, from the files alone (plain LoRA, one rank, one alpha)."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    out = {}
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            out[name] = scale * (b.double() @ a.double())
    return out


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def check(base, adapter, ids):
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    expected = deltas(adapter)
    for name, delta in expected.items():
        plain.get_submodule(name).weight.data += delta
    by_hand = logits(plain, ids)
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64), adapter)
    wrapped = wrapped.double().eval()
    taken = sum(1 for name, _ in wrapped.named_modules() if name.endswith(".lora_A.default"))
    difference = ((logits(wrapped, ids) - by_hand).norm() / by_hand.norm()).item()
    ok = taken == len(expected) and difference < 1e-6
    print(f"{adapter}: {taken} of {len(expected)} modules loaded, relative difference of logits {difference:.2e} {'ok' if ok else 'WRONG'}")
    return ok


def check_sum(adapter, sources):
    merged, parts = deltas(adapter), [deltas(source) for source in sources]
    worst = 0.0
    for name in merged:
        total = sum(part[name] for part in parts if name in part)
        worst = max(worst, ((merged[name] - total).norm() / total.norm()).item())
    print(f"{adapter}: largest relative distance from the sum of {len(sources)} deltas {worst:.2e}")
    return worst < 1e-5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--base", required=True)
    parser.add_argument("--expect-sum", nargs="*", default=[])
    arguments = parser.parse_args()
    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    torch.manual_seed(0)
    ids = torch.randint(3, 2000, (2, 24))
    ok = all([check(arguments.base, adapter, ids) for adapter in arguments.adapters])
    if arguments.expect_sum:
        ok = check_sum(arguments.adapters[0], arguments.expect_sum) and ok
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
