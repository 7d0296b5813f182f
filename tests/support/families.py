"""Small random models of many families, and what the page docs/backbones.md says about each.

Weights, scales, soft caps and biases are large, so that leaving one out shows.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BloomConfig,
    CodeGenConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    NemotronConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.corpora.tokenizer import train_bpe
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.head import output_layer
from tests.support.worlds import taste_dataset

WINDOW = 16  # tokens of a sliding or local window
UNUSED_ROWS = 5  # of the embedding table, beyond the tokenizer
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}
GROUPED = LLAMA | {"num_key_value_heads": 2}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
HALVES = ["sliding_attention", "full_attention"]

# name in docs/backbones.md -> class of the configuration, and its settings
FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "GPT-2": (GPT2Config, GPT),
    "GPT-Neo": (
        GPTNeoConfig,
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 512,
        },
    ),
    "GPT-J": (GPTJConfig, GPT | {"rotary_dim": 4}),
    "GPT-NeoX": (GPTNeoXConfig, LLAMA),
    "OPT": (OPTConfig, OPT),
    "OPT (projected words)": (OPTConfig, OPT | {"word_embed_proj_dim": 16}),
    "BLOOM": (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Falcon": (FalconConfig, FALCON),
    "Falcon (ALiBi)": (FalconConfig, FALCON | {"alibi": True}),
    "MPT": (MptConfig, {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}),
    "CodeGen": (CodeGenConfig, GPT | {"rotary_dim": 4}),
    "Llama": (LlamaConfig, GROUPED),
    "Mistral": (MistralConfig, GROUPED | {"sliding_window": WINDOW}),
    "Mixtral": (MixtralConfig, GROUPED | {"num_local_experts": 4}),
    "Qwen2": (
        Qwen2Config,
        GROUPED | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "Qwen2-MoE": (Qwen2MoeConfig, GROUPED | EXPERTS | {"shared_expert_intermediate_size": 16}),
    "Qwen3": (Qwen3Config, GROUPED | {"head_dim": 8}),
    "Gemma": (GemmaConfig, GROUPED | {"head_dim": 8}),
    "Gemma 2": (
        Gemma2Config,
        GROUPED
        | {"head_dim": 8, "sliding_window": WINDOW}
        | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 0.5},
    ),
    "Gemma 3 (text)": (
        Gemma3TextConfig,
        GROUPED | {"head_dim": 8, "sliding_window": WINDOW, "layer_types": HALVES},
    ),
    "Phi": (PhiConfig, LLAMA),
    "Phi-3": (Phi3Config, LLAMA),
    "OLMo 2": (Olmo2Config, LLAMA),
    "SmolLM3": (SmolLM3Config, GROUPED),
    "StableLM": (StableLmConfig, GROUPED),
    "Granite": (
        GraniteConfig,
        GROUPED
        | {"embedding_multiplier": 12.0, "logits_scaling": 8.0}
        | {"residual_multiplier": 0.5, "attention_multiplier": 0.1},
    ),
    "Cohere": (CohereConfig, GROUPED | {"logit_scale": 0.3}),
    "Nemotron": (NemotronConfig, GROUPED),
    "StarCoder2": (Starcoder2Config, GROUPED | {"sliding_window": WINDOW}),
    "LFM2": (Lfm2Config, GROUPED | {"full_attn_idxs": [1]}),
}


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """At most 300 tokens, for the prompts and the titles of `taste_dataset`."""
    titles = taste_dataset(4, 40, 30, 10).item_texts["title"]
    return train_bpe(["a user has interacted with an item and will interact with", *titles], vocabulary=300)


def random_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A model of a family with large random weights."""
    config_class, settings = FAMILIES[name]
    config = config_class(vocab_size=len(tokenizer()) + UNUSED_ROWS, **ENDS, **settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.25 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
    return model.eval()


def save_family(folder: Path, name: str) -> Path:
    """A folder with a random model of a family and its tokenizer."""
    random_model(name).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def table_row(name: str, backbone: Backbone) -> str:
    """The row of a family in docs/backbones.md, as measured on a model of it."""
    head, model = backbone.head, backbone.model
    of_logits = {
        "scale": head.scale != 1.0,
        "soft cap": head.softcap is not None,
        "bias": output_layer(model).bias is not None,
    }
    logits = ", ".join(word for word, present in of_logits.items() if present)
    inputs = "scale" if backbone.embedding_factor != 1.0 else ""
    attention = "eager" if model.config._attn_implementation == "eager" else "fused"
    sets = "yes" if backbone.reads_sets() else "refused"
    return f"| {name} | {inputs or '-'} | {logits or '-'} | {attention} | {sets} |"


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())
