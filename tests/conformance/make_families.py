"""Makes small models with random weights of every family, an adapter for each, and what Transformers and PEFT compute with them.

Not part of the test suite (the project needs no Python): run it where PyTorch, Transformers and PEFT are installed.

    python tests/conformance/make_families.py tests/fixtures/families [NAME ...]

For each family it writes a folder with `config.json` and `model.safetensors` as they are published, `adapter/` as PEFT saves it, and
`reference.safetensors`, all computed in float32:

    SEQUENCE.input_ids (and SEQUENCE.decoder_input_ids)   for the sequences `short` and `long`
    SEQUENCE.logits, SEQUENCE.adapted_logits              without and with the adapter
    inputs.MODULE                                         what each adapted module reads when the base runs `long`

Versions are in the metadata of `reference.safetensors`. The same versions give the same files.
"""

import copy
import json
import pathlib
import sys

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

VOCABULARY = 64
SIZES = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_SIZES = {
    **SIZES,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
T5_SIZES = {
    **SIZES,
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 44,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}


def llama3_scaling():
    """Rotary scaling of Llama 3.1 and later, with lengths that make every branch matter here."""
    return {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }


def phi3_scaling():
    planes = 4
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.1 * i for i in range(planes)],
        "long_factor": [1.0 + 2.0 * i for i in range(planes)],
    }


# name -> (model_type, settings, keys of config.json to overwrite after saving)
FAMILIES = {
    "llama3": ("llama", {**LLAMA_SIZES, "rope_parameters": llama3_scaling(), "tie_word_embeddings": True}, {}),
    "mistral": ("mistral", {**LLAMA_SIZES, "head_dim": 12, "sliding_window": 9}, {}),
    "qwen2": (
        "qwen2",
        {**LLAMA_SIZES, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        {},
    ),
    "qwen3": ("qwen3", {**LLAMA_SIZES, "head_dim": 12}, {}),
    "gemma2": (
        "gemma2",
        {
            **LLAMA_SIZES,
            "num_hidden_layers": 4,
            "head_dim": 12,
            "query_pre_attn_scalar": 20,
            "sliding_window": 9,
            "attn_logit_softcapping": 4.0,
            "final_logit_softcapping": 3.0,
        },
        {},
    ),
    "gemma3": (
        "gemma3_text",
        {
            **LLAMA_SIZES,
            "num_hidden_layers": 3,
            "head_dim": 12,
            "query_pre_attn_scalar": 20,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
        },
        {},
    ),
    "phi3": ("phi3", {**LLAMA_SIZES, "original_max_position_embeddings": 24, "rope_parameters": phi3_scaling(), "sliding_window": None}, {}),
    "gpt2": (
        "gpt2",
        {**SIZES, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 44},
        {},
    ),
    "t5": ("t5", {**T5_SIZES, "feed_forward_proj": "relu"}, {"tie_word_embeddings": True}),
    "t5_v1_1": (
        "t5",
        {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"tie_word_embeddings": False},
    ),
}


def randomise(model, generator):
    """Weights of sensible size everywhere, norms and biases included, in values that bfloat16 holds."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            embeds = any(part in name for part in ("embed", "shared", "wte", "wpe", "relative_attention_bias"))
            value = noise if embeds else 1.5 * noise / parameter.shape[-1] ** 0.5
            if name.endswith(".q.weight"):
                # T5 scales no scores: its queries are small instead.
                value *= model.config.d_kv**-0.5
        elif "bias" in name:
            value = 0.3 * noise
        else:
            # Gains: around 1, which Gemma stores as their distance from 1.
            value = 0.2 * noise + (0.0 if model.config.model_type.startswith("gemma") else 1.0)
        parameter.data = value.bfloat16().float()


def build(model_type, settings, generator):
    config = transformers.AutoConfig.for_model(model_type, **settings)
    config._attn_implementation = "eager"
    untied = settings.get("tie_word_embeddings") is False
    if untied:
        config.tie_word_embeddings = False
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    randomise(model, generator)
    if untied and config.is_encoder_decoder:
        # Only the head is apart: both stacks share the embeddings in every published T5.
        model.set_input_embeddings(model.get_input_embeddings())
    return model


def sequences(model, generator):
    def tokens(count):
        return torch.randint(3, VOCABULARY, (1, count), generator=generator)

    for name, length, answer in (("short", 7, 3), ("long", 41, 26)):
        ids = {"input_ids": tokens(length)}
        if model.config.is_encoder_decoder:
            ids["decoder_input_ids"] = torch.cat([torch.zeros(1, 1, dtype=torch.long), tokens(answer)], dim=1)
        yield name, ids


def adapted_modules(model):
    """Linear modules of the layers, by full name."""
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds) and name != "lm_head"}


def run(model, ids):
    with torch.no_grad():
        return model(**ids, use_cache=False).logits[0].contiguous()


def inputs_of(model, ids):
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0][0].clone()))
        for name, module in adapted_modules(model).items()
    ]
    run(model, ids)
    for hook in hooks:
        hook.remove()
    return seen


def adapt(model, generator):
    targets = sorted({name.split(".")[-1] for name in adapted_modules(model)})
    fan_in_fan_out = model.config.model_type == "gpt2"
    config = LoraConfig(r=2, lora_alpha=3, target_modules=targets, fan_in_fan_out=fan_in_fan_out)
    wrapped = get_peft_model(model, config).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return wrapped


def sort_targets(path):
    """PEFT writes a set, whose order differs from run to run."""
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2) + "\n")


def write(folder, name, number):
    model_type, settings, overwrite = FAMILIES[name]
    generator = torch.Generator().manual_seed(1000 + number)
    model = build(model_type, settings, generator)
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    references, named = {}, dict(sequences(model, generator))
    for label, ids in named.items():
        references |= {f"{label}.{key}": value[0].contiguous() for key, value in ids.items()}
        references[f"{label}.logits"] = run(model, ids)
    references |= {f"inputs.{module}": value.contiguous() for module, value in inputs_of(model, named["long"]).items()}

    # A copy, because bfloat16() would round rotary frequencies with the weights.
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text()) | overwrite
    if "tie_word_embeddings" in overwrite:
        # As it was published before Transformers 5 began to write this key.
        config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    wrapped = adapt(model, generator)
    for label, ids in named.items():
        references[f"{label}.adapted_logits"] = run(wrapped, ids)
    wrapped.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    sort_targets(folder / "adapter" / "adapter_config.json")
    versions = ", ".join(f"{package.__name__} {package.__version__}" for package in (torch, transformers, peft))
    save_file(references, folder / "reference.safetensors", metadata={"made_with": versions})
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{name}: {type(model).__name__}, {size / 1024:.0f} KiB, |logits| {references['long.logits'].std():.2f}")


def main():
    folder = pathlib.Path(sys.argv[1])
    chosen = sys.argv[2:] or list(FAMILIES)
    for number, name in enumerate(FAMILIES):
        if name in chosen:
            write(folder, name, number)


if __name__ == "__main__":
    main()
