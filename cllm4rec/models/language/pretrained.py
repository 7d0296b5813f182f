"""A pretrained language model from a folder or the Hugging Face hub: configuration, tokenizer and weights.

Folders are not trusted. None of their code is run and nothing is unpickled. Sizes are compared with the
weights before memory is taken for them.
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

from cllm4rec.messages import library_errors, shorten
from cllm4rec.models.description import Shapes
from cllm4rec.models.language.architecture import (
    check_architecture,
    read_config,
    weight_files,
    weight_shapes,
)
from cllm4rec.models.language.head import WordHead

DOWNLOAD_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*",
    "chat_template*",
    "vocab*",
    "merges.txt",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's warnings and progress bars: its reports on weights are raised as errors here."""
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
        folder: of its files.
        model: the network on the meta device, where it takes no memory.
        tokenizer: every token of it has a row in the network's embedding table.
    """

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def read(cls, name: str, advice: str = "") -> "Pretrained":
        """Read everything but the weights, of which only the headers are read.

        Args:
            name: a folder, or a name at the hub.
            advice: appended to error messages.

        Raises:
            ValueError: there is no such model, it is not a causal language model, it has no tokenizer, its
                tokenizer has more tokens than the embedding table has rows, or its files do not fit one
                another.
        """
        with quiet(), library_errors(f"backbone {name!r} cannot be loaded", advice):
            folder = _folder(name)
            if (folder / "adapter_config.json").is_file():
                raise ValueError(
                    "it holds adapters (adapter_config.json): merge them with merge_and_unload and save the "
                    "model"
                )
            shapes = weight_shapes(weight_files(folder))
            config = read_config(folder, shapes)
            model = check_architecture(config, shapes)
            WordHead.of(model)
            tokenizer = read_tokenizer(folder, config)
        _check_vocabulary(tokenizer, vocabulary_size(model), f"backbone {name!r}")
        return cls(folder, model, tokenizer)

    def load(self) -> PreTrainedModel:
        """The network with its weights, in float32.

        Raises:
            ValueError: weights are missing, or of other shapes than the configuration says.
        """
        with quiet(), library_errors(f"backbone {str(self.folder)!r} cannot be loaded"), ExitStack() as stack:
            weights: dict[str, Any] = {}
            for file in weight_files(self.folder):
                opened = stack.enter_context(safe_open(file, framework="pt"))
                weights |= {name: opened.get_slice(name) for name in opened.keys()}
            model_class: Any = type(self.model)
            model, report = model_class.from_pretrained(
                None,  # no folder: only these weights are read
                config=self.model.config,
                state_dict=weights,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
                if report[problem]:
                    detail = f"{problem.replace('_', ' ')} {sorted(report[problem])[0]}"
                    raise ValueError(f"weights do not fit config.json: {detail}")
        return cast(PreTrainedModel, model)


def read_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        ValueError: there is none.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    if not tokenizer("user")["input_ids"]:  # the library makes an empty tokenizer without a vocabulary
        raise ValueError("it has no tokenizer")
    return tokenizer


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, n_rows: int, subject: str) -> None:
    """Refuse a tokenizer with tokens beyond the embedding table: they would be read as users and items.

    Args:
        tokenizer: of the model.
        n_rows: of its embedding table.
        subject: name of the model in the error.

    Raises:
        ValueError: names the last token.
    """
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary, key=vocabulary.__getitem__)
    n_tokens = vocabulary[last] + 1
    if n_tokens > n_rows:
        raise ValueError(
            f"{subject}: its tokenizer has {n_tokens:,} tokens (the last is {shorten(repr(last))}), but its "
            f"embedding table has {n_rows:,} rows: call model.resize_token_embeddings({n_tokens}) and save "
            "the model"
        )


def read_run_model(folder: Path, shapes: Shapes, prefix: str) -> Pretrained:
    """The network and tokenizer of a run's tuned backbone.

    Args:
        folder: of its configuration and tokenizer.
        shapes: of the arrays in the run's model.safetensors, by name.
        prefix: of the backbone's names among them.

    Raises:
        ValueError: a file is missing or damaged, or the files do not fit one another.
    """
    with quiet(), library_errors(f"{folder} is damaged", ": train this stage again"):
        model = check_architecture(read_config(folder, shapes), shapes, prefix)
        tokenizer = read_tokenizer(folder, model.config)
    _check_vocabulary(tokenizer, vocabulary_size(model), str(folder))
    return Pretrained(folder, model, tokenizer)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of rows of a model's embedding table."""
    return int(cast(Tensor, model.get_input_embeddings().weight).shape[0])


def _folder(name: str) -> Path:
    """The folder of a model: `name` itself, or its download from the hub."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or Path(name).exists():
        raise ValueError("there is no such folder")
    return Path(snapshot_download(name, allow_patterns=list(DOWNLOAD_PATTERNS)))
