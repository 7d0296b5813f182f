"""SHA-256 of a language model's configuration and tokenizer: the same for a faithful copy, however it was saved."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cllm4rec.models.language.pretrained import quiet

IGNORED = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
}  # of how it was saved
PER_CALL = ("padding", "truncation")  # of a fast tokenizer: each call sets them anew


def config_sha256(config: PreTrainedConfig) -> str:
    """SHA-256 of the settings in which a configuration differs from the defaults of its kind.

    Defaults are left out, so that a key that a later transformers adds changes nothing.
    """
    with quiet():
        differing = _difference(_settings(config), _settings(type(config)()))
    return _sha256({"model_type": config.model_type, "settings": differing})


def tokenizer_sha256(words: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides into which tokens a text is divided."""
    described: dict[str, Any] = {
        "end": words.eos_token_id,
        "split_special_tokens": words.split_special_tokens,
    }
    if isinstance(words, PreTrainedTokenizerFast):
        serialised = json.loads(words.backend_tokenizer.to_str())
        described["serialised"] = {key: value for key, value in serialised.items() if key not in PER_CALL}
    else:
        described |= {
            "kind": type(words).__name__,
            "vocabulary": words.get_vocab(),
            "files": _vocabulary_files(words),
        }
    return _sha256(described)


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return settings


def _difference(settings: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The settings that the default lacks or has otherwise, in nested configurations too."""
    differing: dict[str, Any] = {}
    for key in settings.keys() - IGNORED:
        value, usual = settings[key], default.get(key)
        if isinstance(value, dict):
            value = _difference(value, usual if isinstance(usual, dict) else {})
            usual = value if isinstance(usual, dict) and not value else None
        if key not in default or value != usual:
            differing[key] = value
    return differing


def _vocabulary_files(words: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of the files of vocabulary that a tokenizer in Python saves, by name."""
    with TemporaryDirectory() as folder:
        words.save_vocabulary(folder)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir()}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
