"""A pretrained language model of a folder or of the Hugging Face hub: its description, tokenizer and weights.

Folders come from others. No code of theirs is run, nothing is unpickled, and no size is believed that the weights do not have.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from cllm4rec.corpora.tokenizer import library_errors
from cllm4rec.messages import shorten
from cllm4rec.models.language.architecture import (
    Shapes,
    check_architecture,
    read_config,
    weight_files,
    weight_shapes,
)

DOWNLOADED = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*",
    "vocab*",
    "merges.txt",
)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of the library: its reports of weights are read here and raised as errors."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class Pretrained:
    """A pretrained language model whose weights are not read yet.

    Attributes:
        folder: where it is.
        model: the network on the meta device, which takes no memory.
        tokenizer: of its words; every token has a row in the network's word table.
    """

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def read(cls, name: str, advice: str = "") -> "Pretrained":
        """Everything but the weights, of which the headers are read.

        Args:
            name: a folder, or a name at the hub.
            advice: the end of an error's line.

        Raises:
            ValueError: there is no such model, it is not a causal language model, it has no tokenizer, its tokenizer has
                more tokens than the word table has rows, or its files do not fit one another.
        """
        with quiet(), library_errors(f"backbone {name!r} cannot be loaded", advice):
            folder = _folder(name)
            if (folder / "adapter_config.json").is_file():
                raise ValueError(
                    "it holds adapters (adapter_config.json): merge them with merge_and_unload and save the model"
                )
            shapes = weight_shapes(weight_files(folder))
            config = read_config(folder, shapes)
            model = check_architecture(config, shapes)
            if getattr(model.get_output_embeddings(), "bias", None) is not None:
                raise ValueError("it has a bias in its word head, which this package does not read")
            tokenizer = read_tokenizer(folder, config)
        _check_vocabulary(tokenizer, n_words(model), f"backbone {name!r}")
        return cls(folder, model, tokenizer)

    def load(self) -> PreTrainedModel:
        """The model with its weights, in float32.

        Raises:
            ValueError: weights are missing, or of other shapes than the configuration says.
        """
        with quiet(), library_errors(f"backbone {str(self.folder)!r} cannot be loaded"), ExitStack() as stack:
            weights: dict[str, Any] = {}
            for file in weight_files(self.folder):
                opened = stack.enter_context(safe_open(file, framework="pt"))
                weights |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            model_class: Any = type(self.model)
            model, report = model_class.from_pretrained(
                None,  # no folder, so that these weights alone are read
                config=self.model.config,
                state_dict=weights,
                dtype=torch.float32,
                attn_implementation="sdpa",
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
                if report[problem]:
                    raise ValueError(
                        f"weights do not fit config.json: {problem.replace('_', ' ')} {sorted(report[problem])[0]}"
                    )
        return cast(PreTrainedModel, model)


def read_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        ValueError: there is none.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    if not tokenizer("user")["input_ids"]:  # what is made of a folder without a vocabulary
        raise ValueError("it has no tokenizer beside its weights")
    return tokenizer


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, whose: str) -> None:
    """Raise ValueError if there are tokens for which the word table has no row: they would be read as users and items."""
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] >= rows:
        raise ValueError(
            f"{whose}: its tokenizer has {vocabulary[last] + 1:,} tokens (the last is {shorten(repr(last))}), but its word "
            f"table has {rows:,} rows: call model.resize_token_embeddings({vocabulary[last] + 1}) and save the model"
        )


def read_run_model(folder: Path, shapes: Shapes, prefix: str) -> Pretrained:
    """The description and tokenizer that a run saved; its weights, of these names and shapes, begin with `prefix`.

    Raises:
        ValueError: a file is missing or damaged, or the files do not fit one another.
    """
    with quiet(), library_errors(f"{folder} is damaged", ": train this stage again"):
        model = check_architecture(read_config(folder, shapes), shapes, prefix)
        tokenizer = read_tokenizer(folder, model.config)
    _check_vocabulary(tokenizer, n_words(model), str(folder))
    return Pretrained(folder, model, tokenizer)


def n_words(model: PreTrainedModel) -> int:
    """Rows of a model's word table."""
    return int(cast(Tensor, model.get_input_embeddings().weight).shape[0])


def _folder(name: str) -> Path:
    """The folder of a name: itself, or what is or was downloaded from the hub."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or Path(name).exists():
        raise ValueError("there is no such folder")
    return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED)))
