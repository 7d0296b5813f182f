"""A language model in one GGUF file: its header is checked here, the rest is read by transformers.

Layout of a file (versions 2 and 3): the magic bytes, the version, the number of tensors and of metadata
values; the values, each with key and type; name, shape, type and position of each tensor; their data.
"""

import importlib.util
import io
import math
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cllm4rec.messages import shorten
from cllm4rec.models.description import Shapes
from cllm4rec.models.language.architecture import check_counts

MAX_HEADER_BYTES = 1 << 26  # that of Gemma 3, with 262,144 tokens, has 6.5 million
MAX_DIMENSIONS = 4  # of a tensor, in ggml
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
COUNTS = {"block_count": "num_layers", "expert_count": "num_experts"}  # by their names in architecture.py
EMBEDDINGS = "token_embd.weight"


class Header(NamedTuple):
    """What a GGUF file says of itself before its weights.

    Attributes:
        values: single numbers and strings by key.
        shapes: of the tensors by name, as torch orders dimensions.
    """

    values: dict[str, Any]
    shapes: Shapes


class _Cursor:
    """A position in the header, which moves on with all that is read."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Little-endian numbers in the format of `struct`."""
        try:
            values = struct.unpack_from(f"<{form}", self.content, self.position)
        except struct.error as error:
            raise ValueError(f"its header is cut, or larger than {MAX_HEADER_BYTES:,} bytes") from error
        self.position += struct.calcsize(f"<{form}")
        return values

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def skip(self, n_bytes: int) -> None:
        self.position += n_bytes
        if self.position > len(self.content):
            raise ValueError(f"its header is cut, or larger than {MAX_HEADER_BYTES:,} bytes")

    def string(self) -> str:
        n_bytes = self.number("Q")
        self.skip(n_bytes)
        return self.content[self.position - n_bytes : self.position].decode("utf-8")

    def value(self) -> Any:
        """The next value of the metadata; None for an array, which is passed over."""
        kind = self.number("I")
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"its header has a value of unknown type {kind}")
        kind, length = self.numbers("IQ")
        if kind in NUMBERS:
            self.skip(length * struct.calcsize(NUMBERS[kind]))
        elif kind == STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        else:
            raise ValueError(f"its header has an array of unknown type {kind}")
        return None


def check_gguf() -> None:
    """Raise ValueError unless the package that reads the files is installed."""
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            "GGUF files need gguf, which is not installed: pip install gguf (extra cllm4rec[gguf])"
        )


def read_header(file: Path) -> Header:
    """The header of a GGUF file, every length in it compared with the size of the file.

    The library's reader trusts these lengths.

    Raises:
        ValueError: it is no GGUF file, is damaged, or lacks data of a tensor.
    """
    with file.open("rb") as opened:
        content = opened.read(MAX_HEADER_BYTES)
    if not b"GGUF".startswith(content[:4]):
        raise ValueError("it is not a GGUF file")
    cursor = _Cursor(content)
    _, version, n_tensors, n_values = cursor.numbers("4sIQQ")
    if version not in (2, 3):
        raise ValueError(f"it is a GGUF file of version {version}: expected 2 or 3")
    values = {}
    for _ in range(n_values):
        key = cursor.string()
        if (value := cursor.value()) is not None:
            values[key] = value
    shapes: dict[str, tuple[int, ...]] = {}
    ends = [0]  # of the tensors' data, from the start of all data
    for _ in range(n_tensors):
        name, n_dimensions = cursor.string(), cursor.number("I")
        if n_dimensions > MAX_DIMENSIONS:
            raise ValueError(f"tensor {shorten(name)} has {n_dimensions} dimensions")
        shape = cursor.numbers(f"{n_dimensions}Q")
        kind, offset = cursor.numbers("IQ")
        shapes[name] = shape[::-1]
        ends.append(offset + _n_bytes(name, kind, shape))
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"its header has general.alignment {shorten(repr(alignment))}")
    start = -(-cursor.position // alignment) * alignment
    if start + max(ends) > file.stat().st_size:
        raise ValueError(f"it is cut: its tensors end at byte {start + max(ends):,}")
    return Header(values, shapes)


def _n_bytes(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor's data; `shape` begins with the length of a row."""
    from gguf import GGML_QUANT_SIZES

    sizes = {int(quantisation): size for quantisation, size in GGML_QUANT_SIZES.items()}
    if kind not in sizes:
        raise ValueError(f"tensor {shorten(name)} is of unknown type {kind}")
    block, n_bytes = sizes[kind]
    if not shape or shape[0] % block:
        raise ValueError(
            f"tensor {shorten(name)} of shape {list(shape[::-1])} has no whole blocks of {block}"
        )
    return math.prod(shape) // block * n_bytes


@contextmanager
def alone(file: Path) -> Iterator[dict[str, Any]]:
    """Arguments with which the library reads a file, in a folder of its own: no other file is looked at.

    The library's progress bar is shown on a terminal only.
    """
    silence = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    with silence, TemporaryDirectory() as folder:
        (Path(folder) / "model.gguf").symlink_to(file.resolve())
        yield {
            "pretrained_model_name_or_path": folder,
            "gguf_file": "model.gguf",
        }


def read_gguf(file: Path) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase, Shapes]:
    """Configuration and tokenizer in a GGUF file, and the shapes of its tensors.

    Raises:
        ValueError: the file is damaged, or of an architecture that transformers does not read.
    """
    check_gguf()
    header = read_header(file)
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError("its header has no general.architecture")
    counts = {name: header.values.get(f"{architecture}.{key}") for key, name in COUNTS.items()}
    check_counts(counts, header.shapes)
    with alone(file) as arguments:
        config = AutoConfig.from_pretrained(**arguments, trust_remote_code=False)
        check_counts(config.to_dict(), header.shapes)
        tokenizer = AutoTokenizer.from_pretrained(**arguments, trust_remote_code=False)
    return config, tokenizer, header.shapes


def check_embeddings(model: PreTrainedModel, shapes: Shapes) -> None:
    """Raise ValueError unless the embedding table has the shape that the configuration says."""
    expected = tuple(cast(Tensor, model.get_input_embeddings().weight).shape)
    if shapes.get(EMBEDDINGS) != expected:
        stored = list(shapes[EMBEDDINGS]) if EMBEDDINGS in shapes else "missing"
        raise ValueError(f"tensor {EMBEDDINGS} is {stored}, and its header describes {list(expected)}")
