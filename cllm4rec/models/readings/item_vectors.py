"""Vectors of a dataset's items, from their texts or from a file. Imports no torch before texts are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.loading import as_dataset
from cllm4rec.models.readings.item_texts import ItemTexts, ItemVectors, TextEncoder
from cllm4rec.models.readings.vector_files import read_vectors

DEPTH = 0.67  # two thirds of the layers: the upper ones turn to predicting the next word


def item_vectors(
    dataset: Dataset | str | Path,
    encoder: str | Path | TextEncoder | None = None,
    item_vectors: str | Path | None = None,
    *,
    depth: float | None = None,
    fields: Sequence[str] | None = None,
    standardise: bool = True,
) -> ItemVectors:
    """A vector for each item: an encoder's reading of its text, or the caller's own.

    Texts are read once: the readings are cached (`models/readings/cache.py`). No training is involved, and an
    item's vector depends on no other item, but for rounding, and for the standardisation over the items with
    training events.

    Args:
        dataset: a dataset, or its folder.
        encoder: name or folder of a Hugging Face causal language model, or its .gguf file; name or folder of
            a sentence-transformers model; or an object with the methods of `TextEncoder`.
        item_vectors: a .parquet file (`item_id`, `vector`) or a .npy file (rows as in `dataset.items`).
            Exactly one of `encoder` and `item_vectors` is given.
        depth: share of a language model's layers, above 0 to 1, after which its states are read; DEPTH by
            default. Entry round(depth * layers), at least 1, of the `hidden_states` of transformers.
        fields: the text columns to read; by default all.
        standardise: whether each dimension gets mean 0 and variance 1 over the items with training events.

    Raises:
        ValueError: an argument has no effect, or the encoder, the texts or the file are refused.
    """
    dataset = as_dataset(dataset)
    if (encoder is None) == (item_vectors is None):
        raise ValueError("give one of `encoder` and `item_vectors`")
    if item_vectors is not None and not isinstance(item_vectors, str | Path):
        raise ValueError(f"`item_vectors` is a {type(item_vectors).__name__}: give the path of a file")
    if encoder is not None:
        texts = ItemTexts.of(dataset, fields)
        vectors = texts.vectors(open_encoder(encoder, depth))
    else:
        for name, value in (("depth", depth), ("fields", fields)):
            if value is not None:
                raise ValueError(f"`{name}` has no effect on vectors of a file: leave it out")
        vectors = read_vectors(str(item_vectors), dataset.item_ids)
    if not standardise:
        return vectors
    n_events = np.bincount(dataset.train.interactions.items, minlength=dataset.n_items)
    return vectors.standardised(n_events > 0)


def open_encoder(encoder: str | Path | TextEncoder, depth: float | None) -> TextEncoder:
    """The encoder of a name or folder, whose weights are not read yet.

    Args:
        encoder: as in `item_vectors`.
        depth: as in `item_vectors`.

    Raises:
        ValueError: there is no such model, or it has no depth.
    """
    if depth is not None and not 0 < depth <= 1:
        raise ValueError(f"`depth` is {depth}: it has to be above 0, and it may not be above 1")
    if isinstance(encoder, str | Path):
        from cllm4rec.models.language.config import BackboneConfig, built_in_shape
        from cllm4rec.models.language.loading import held_dtype
        from cllm4rec.models.language.pretrained import Pretrained
        from cllm4rec.models.readings.language import LanguageEncoder
        from cllm4rec.models.readings.sentences import SentenceEncoder, sentence_folder

        if built_in_shape(str(encoder)) is not None:
            raise ValueError(f"`encoder`: {encoder} is not pretrained, so it cannot read texts{ADVICE}")
        folder = sentence_folder(str(encoder))
        if folder is None:
            pretrained = Pretrained.read(str(encoder), ADVICE, role="encoder")
            dtype = held_dtype(BackboneConfig(str(encoder), tune="frozen"))
            return LanguageEncoder(pretrained, DEPTH if depth is None else depth, dtype)
        encoder = SentenceEncoder(folder)
    if not (hasattr(encoder, "fingerprint") and callable(getattr(encoder, "encode", None))):
        raise ValueError(
            f"`encoder` is a {type(encoder).__name__}: give a name, a folder, or an object with the method "
            "encode(texts) and the attribute fingerprint"
        )
    if depth is not None:
        raise ValueError("`depth` is of causal language models, and this encoder is none: leave it out")
    return encoder


ADVICE = (
    "; `encoder` takes the name, folder or GGUF file of a Hugging Face causal language model, or the name or "
    "folder of a sentence-transformers model"
)
