"""SHA-256 of a language model's weights, configuration and tokenizer.

Each is the same for a copy that was saved in another way, or is held in another dtype.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cllm4rec.models.language.silence import quiet

# keys of a configuration that say how it was saved
IGNORED_KEYS = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
PER_CALL_KEYS = ("padding", "truncation")  # of a fast tokenizer; each call sets them
NUMBERS_AT_ONCE = 1 << 20  # of a tensor, converted to float32


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of weights.

    Floating values enter as float32: those of a bfloat16 copy are the same whichever of the two holds them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        for part in tensor.detach().reshape(-1).split(NUMBERS_AT_ONCE):
            numbers = part.float() if part.is_floating_point() else part
            digest.update(numbers.cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_sha256(config: PreTrainedConfig) -> str:
    """SHA-256 of the settings in which a configuration differs from the defaults of its class.

    Without the defaults, a key that a later version of transformers adds changes nothing.
    """
    with quiet():
        differing = _difference(_settings(config), _settings(type(config)()))
    return _sha256({"model_type": config.model_type, "settings": differing})


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that determines the tokens of a text."""
    content: dict[str, Any] = {
        "end": tokenizer.eos_token_id,
        "split_special_tokens": tokenizer.split_special_tokens,
    }
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        serialised = json.loads(tokenizer.backend_tokenizer.to_str())
        content["serialised"] = {key: value for key, value in serialised.items() if key not in PER_CALL_KEYS}
    else:
        content |= {
            "kind": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "files": _vocabulary_files(tokenizer),
        }
    return _sha256(content)


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return settings


def _difference(settings: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from the default, in nested configurations too."""
    differing: dict[str, Any] = {}
    for key in settings.keys() - IGNORED_KEYS:
        value, default_value = settings[key], default.get(key)
        if isinstance(value, dict):
            nested_default = default_value if isinstance(default_value, dict) else {}
            value = _difference(value, nested_default)
            default_value = value if isinstance(default_value, dict) and not value else None
        if key not in default or value != default_value:
            differing[key] = value
    return differing


def _vocabulary_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of the vocabulary files that a tokenizer in Python saves, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_vocabulary(folder)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir()}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
