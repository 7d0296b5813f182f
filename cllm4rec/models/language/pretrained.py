"""A pretrained language model, by name, folder or GGUF file: configuration, tokenizer and weights.

Files are not trusted. None of their code is run and nothing is unpickled. Sizes are compared with the weights
before memory is taken for them.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cllm4rec.messages import counted, escaped, library_errors, shorten
from cllm4rec.models.description import Shapes
from cllm4rec.models.language.architecture import (
    check_architecture,
    read_config,
    weight_files,
    weight_shapes,
)
from cllm4rec.models.language.fingerprints import weights_sha256
from cllm4rec.models.language.gguf_files import alone, check_embeddings, read_gguf
from cllm4rec.models.language.head import WordHead
from cllm4rec.models.language.silence import quiet

log = logging.getLogger("cllm4rec")

DOWNLOAD_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*",
    "chat_template*",
    "vocab*",
    "merges.txt",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")  # at least one
FLOATS = {"F64", "F32", "F16", "BF16"}  # of safetensors
READ_TYPES = FLOATS | {"I64", "I32", "I16", "I8", "U8", "BOOL"}
Source = tuple[PreTrainedConfig, PreTrainedTokenizerBase, Shapes]


@dataclass(frozen=True)
class Pretrained:
    """A pretrained language model whose weights are not read yet.

    Attributes:
        path: folder of its files, or its GGUF file.
        model: the network on the meta device, where it takes no memory.
        tokenizer: every token of it has a row in the network's embedding table.
        commit: of its repository at the hub, if it comes from there.
        role: its name in messages.
    """

    path: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    commit: str | None = None
    role: str = "backbone"

    @classmethod
    def read(
        cls, name: str, advice: str = "", revision: str | None = None, role: str = "backbone"
    ) -> "Pretrained":
        """Read everything but the weights, of which only the headers are read.

        Args:
            name: a folder, a GGUF file, or a name at the hub.
            advice: appended to error messages.
            revision: branch, tag or commit at the hub; by default its main branch.
            role: its name in messages.

        Raises:
            ValueError: there is no such model, it is not a causal language model, it has no tokenizer, its
                tokenizer has more tokens than the embedding table has rows, or its files do not fit one
                another.
        """
        with quiet(), library_errors(f"{role} {name!r} cannot be loaded", advice):
            path = _path(name, revision)
            config, tokenizer, shapes = read_gguf(path) if path.is_file() else _read_folder(path)
            model = check_architecture(config, shapes)
            WordHead.of(model)
            if path.is_file():
                check_embeddings(model, shapes)
        _check_vocabulary(tokenizer, vocabulary_size(model), f"{role} {name!r}")
        commit = None if Path(name).exists() else path.name
        return cls(path, model, tokenizer, commit, role)

    def load(self, dtype: torch.dtype) -> tuple[PreTrainedModel, str]:
        """The network with its weights in a dtype, and the SHA-256 of the weights as stored.

        If the dtype cannot hold the stored values, they are read in float32 first, for the SHA-256 alone.
        A warning is logged if the network has no use for some weights.

        Args:
            dtype: float32 or bfloat16.

        Raises:
            ValueError: weights are missing, or of other shapes than the configuration says.
        """
        unused: set[str] = set()
        subject = f"{self.role} {str(self.path)!r}"
        with quiet(), library_errors(f"{subject} cannot be loaded"), ExitStack() as stack:
            if self.path.is_file():
                weights, stored = _gguf_weights(self.path, self.model, unused), {"F32"}
            else:
                weights, stored = _folder_weights(self.path, stack)
            exact = dtype == torch.float32 or stored <= {"BF16"}
            model = _network(self.model, dtype if exact else torch.float32, unused, state_dict=weights)
            sha256 = weights_sha256(model.state_dict())
            if not exact:
                del model
                model = _network(self.model, dtype, unused, state_dict=weights)
        if unused:
            log.warning(
                "%s: its weights hold %s that a model of type %s has no use for, such as %s: the "
                "configuration may be that of another model",
                subject,
                counted(len(unused), "tensor"),
                self.model.config.model_type,
                shorten(escaped(min(unused))),
            )
        return model, sha256


def _read_folder(folder: Path) -> Source:
    """Configuration and tokenizer of a folder, and the shapes of its tensors."""
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            "it holds adapters (adapter_config.json): merge them with merge_and_unload and save the model"
        )
    shapes = weight_shapes(weight_files(folder))
    config = read_config(folder, shapes)
    return config, read_tokenizer(folder, config), shapes


def _folder_weights(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], set[str]]:
    """The weights of a folder, each read when it is indexed, and the types of the floating ones.

    Raises:
        ValueError: a type is not read.
    """
    weights: dict[str, Any] = {}
    for file in weight_files(folder):
        opened = stack.enter_context(safe_open(file, framework="pt"))
        weights |= {name: opened.get_slice(name) for name in opened.keys()}
    types = {name: tensor.get_dtype() for name, tensor in weights.items()}
    for name, kind in types.items():
        if kind not in READ_TYPES:
            raise ValueError(f"tensor {name} is of type {kind}, which this package does not read")
    return weights, FLOATS & set(types.values())


def _gguf_weights(file: Path, blank: PreTrainedModel, unused: set[str]) -> dict[str, Any]:
    """The weights in a GGUF file by their names in the network, in float32; quantised ones are computed.

    Names without a use are added to `unused`.
    """
    from transformers import GgufConfig

    with alone(file) as source:
        dequantised = GgufConfig(dequantize=True)
        model = _network(blank, torch.float32, unused, **source, quantization_config=dequantised)
    return dict(model.state_dict())


def _network(
    blank: PreTrainedModel,
    dtype: torch.dtype,
    unused: set[str],
    pretrained_model_name_or_path: str | None = None,
    **source: Any,
) -> PreTrainedModel:
    """A network with weights, which the library names and converts.

    Args:
        blank: the network on the meta device.
        dtype: of the weights.
        unused: names of weights that the network has no use for are added to it. Those that the library
            knows to be without meaning are left out.
        pretrained_model_name_or_path: folder that the library may read; by default it reads none.
        source: of the weights, as the library's arguments.

    Raises:
        ValueError: weights are missing, or of other shapes than the configuration says.
    """
    model_class: Any = type(blank)
    model, report = model_class.from_pretrained(
        pretrained_model_name_or_path,
        config=blank.config,
        dtype=dtype,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **source,
    )
    for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report[problem]:
            detail = f"{problem.replace('_', ' ')} {sorted(report[problem])[0]}"
            raise ValueError(f"weights do not fit the configuration: {detail}")
    unused |= set(report["unexpected_keys"])
    return cast(PreTrainedModel, model)


def read_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    has_files = any((folder / name).is_file() for name in TOKENIZER_FILES)
    missing = f"it has no tokenizer: expected {' or '.join(TOKENIZER_FILES)} in its folder"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except Exception as error:  # of any kind, in words of the library's own parts
        if has_files:
            raise
        raise ValueError(missing) from error
    if not tokenizer("user")["input_ids"]:  # the library makes an empty tokenizer without a vocabulary
        raise ValueError("its tokenizer has no words" if has_files else missing)
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


def _path(name: str, revision: str | None) -> Path:
    """The folder or GGUF file of a model: `name` itself, or the folder of its download from the hub.

    Raises:
        ValueError: there is no such folder or file, or a revision was given with one.
    """
    path = Path(name)
    local = path.is_dir() or (path.is_file() and path.suffix.lower() == ".gguf")
    if local and revision is not None:
        raise ValueError(f"`revision` {revision} is of a name at the hub, not of files: leave it out")
    if local:
        return path
    if path.is_file():
        raise ValueError("it is a file, and of files only GGUF is read (.gguf): name the folder of the model")
    if path.suffix.lower() == ".gguf":
        raise ValueError("there is no such file")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise ValueError("there is no such folder")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(DOWNLOAD_PATTERNS)))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            "there is no such folder, nor such a model in the local cache of the Hugging Face hub, which was "
            "not reached"
        ) from error
