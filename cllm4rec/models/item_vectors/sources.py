"""What texts say about users and items, before training: bags of words and frozen vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cllm4rec.corpora.item_words import count_words, item_documents, user_documents
from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.models.readings.item_texts import ItemTexts, ItemVectors
from cllm4rec.models.readings.item_vectors import item_vectors, open_encoder
from cllm4rec.models.readings.vector_files import read_vectors

MOST_WORDS = 128  # of a user or an item: those that are most specific to it
LARGEST_RESIDUAL = 1e-2  # of vectors of known items that are read again, relative to the largest
SMALLEST_VARIANCE = 1e-4  # of a direction that is whitened, relative to the largest
Bags = tuple[sp.csr_matrix | None, Sequence[str]]  # bags of words (n, V), and the V words
NO_WORDS: Bags = (None, ())


@dataclass(frozen=True)
class TextSources:
    """What is read from the texts of n users or items.

    Attributes:
        in_training: bool (n,), whether each has a training event.
        words: float32 (n, V), each row 1 / sqrt(number of its words and bigrams); None without any.
        vocabulary: these V words and bigrams.
        vectors: float32 (n, D), whitened and divided by sqrt(D), so that their length is about 1, as that of
            `words` is; zeros for those without a vector. None without any.
    """

    in_training: np.ndarray
    words: sp.csr_matrix | None
    vectors: np.ndarray | None
    vocabulary: Sequence[str] = ()


def check_sources(config: ItemTextConfig, dataset: Dataset, default_encoder: str | None = None) -> None:
    """Refuse what `item_text` asks for and is not there, without reading weights.

    Args:
        config, default_encoder: as in `item_sources`.
        dataset: its items, and its training events.

    Raises:
        ValueError: as in `item_sources`.
    """
    train = dataset.train
    in_training = train.interactions.item_has_event
    if config.item_text in ("words", "both"):
        _words(config, train, in_training)
    encoder, file = _source(config, train, in_training, default_encoder)
    if file is not None:
        read_vectors(file, dataset.item_ids)
    elif encoder is not None:
        ItemTexts.of(dataset)
        if config.encoder is not None:  # the default is checked as the backbone that it is
            open_encoder(encoder, None)


def item_sources(config: ItemTextConfig, train: Dataset, default_encoder: str | None = None) -> TextSources:
    """What the texts of the items say, as `item_text` asks for it.

    Args:
        config: which parts are read, and by what.
        train: its items' texts are read; those with events choose the words and the whitening.
        default_encoder: reads the texts where the settings name no source of vectors. With `auto` it does
            so only if two items with events differ in their texts.

    Raises:
        ValueError: `item_text` asks for what is not there; or encoder or file are refused.
    """
    in_training = train.interactions.item_has_event
    words, vocabulary = _words(config, train, in_training)
    vectors = _vectors(config, train, in_training, default_encoder)
    return TextSources(in_training, words, vectors, vocabulary)


def _words(config: ItemTextConfig, train: Dataset, in_training: np.ndarray) -> Bags:
    """Bags of the items' words; None if none are to be read.

    Raises:
        ValueError: they are requested, and there are none.
    """
    bags = _bags(item_documents(train), in_training) if config.reads_words else NO_WORDS
    if bags[0] is None and config.item_text in ("words", "both"):
        raise ValueError(
            f"`item_text={config.item_text}`: no word is in the texts of three items: prepare the dataset "
            "with a table of items that has titles, or leave `item_text` out"
        )
    return bags


def read_again_items(
    config: ItemTextConfig,
    train: Dataset,
    before: TextSources,
    again: np.ndarray,
    default_encoder: str | None = None,
) -> TextSources:
    """What the texts of some items say now, in the words and in the whitened vectors of a fitted model.

    Args:
        config, default_encoder: as in `item_sources`.
        train: its items' texts are read.
        before: what the model holds of these items; nothing of new ones.
        again: bool (n_items,), the items that are read; others stay as they are.

    Raises:
        ValueError: encoder or file are refused, or give other vectors of known items than in training.
    """
    found = _words_again(item_documents(train), before, again)
    if before.vectors is None:
        return found
    encoder, file = _source(config, train, before.in_training, default_encoder)
    read = item_vectors(train, encoder, file, standardise=False)
    return replace(found, vectors=_vectors_again(read, before.vectors, again))


def read_again_users(train: Dataset, before: TextSources, again: np.ndarray) -> TextSources:
    """What the texts of some users say in the words of a fitted model; arguments as for items."""
    return _words_again(user_documents(train), before, again)


def _words_again(documents: list[list[str]], before: TextSources, again: np.ndarray) -> TextSources:
    """The bags of rows as they are, and those that are read again in the same vocabulary."""
    if before.words is None:
        return before
    counts = count_words(documents, before.in_training, vocabulary=before.vocabulary)
    stay, read = (sp.diags_array(rows.astype(np.float32), format="csr") for rows in (~again, again))
    words = sp.csr_matrix(stay @ before.words + read @ counts.bags(MOST_WORDS))
    words.sort_indices()
    return replace(before, words=words)


def _vectors_again(read: ItemVectors, before: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Whitened vectors (n, D): rows as they are, and by the same map those that are read again.

    The map is that of the vectors of the others, as they are read now, to their whitened ones. It is affine,
    so that least squares finds it.

    Raises:
        ValueError: there is no such map, as something else reads the texts now.
    """
    known = read.present & before.any(1) & ~again
    old, target = read.values[known].astype(np.float64), before[known].astype(np.float64)
    centre, mean = (each.sum(0) / max(len(each), 1) for each in (old, target))
    projection, *_ = np.linalg.lstsq(old - centre, target - mean)
    residual = float(np.abs((old - centre) @ projection + mean - target).max(initial=0))
    if residual > LARGEST_RESIDUAL * float(np.abs(target).max(initial=0)):
        raise ValueError(
            "the vectors of the items that the model knows are not those of its training: extend it with the "
            "encoder and the dataset of its training"
        )
    mapped = ((read.values - centre) @ projection + mean) * read.present[:, None]
    return np.where(again[:, None], mapped, before).astype(np.float32)


def user_sources(config: ItemTextConfig, train: Dataset) -> TextSources:
    """What the texts of the users say: their words."""
    in_training = np.diff(train.interactions.indptr) > 0
    words, vocabulary = _bags(user_documents(train), in_training) if config.reads_words else NO_WORDS
    return TextSources(in_training, words, None, vocabulary)


def _bags(documents: list[list[str]], in_training: np.ndarray) -> Bags:
    """Bags of the words and bigrams in at least three training rows; None if there are none."""
    counts = count_words(documents, in_training)
    return (counts.bags(MOST_WORDS), counts.vocabulary) if counts.vocabulary else NO_WORDS


def _vectors(
    config: ItemTextConfig, train: Dataset, in_training: np.ndarray, default_encoder: str | None
) -> np.ndarray | None:
    """Whitened vectors of the items; None if none are to be read."""
    encoder, file = _source(config, train, in_training, default_encoder)
    if encoder is None and file is None:
        return None
    learns_from("whitened vectors of texts", train.interactions)
    vectors = whitened(item_vectors(train, encoder, file, standardise=False), in_training)
    return vectors / np.float32(vectors.shape[1] ** 0.5)


def _source(
    config: ItemTextConfig, train: Dataset, in_training: np.ndarray, default_encoder: str | None
) -> tuple[str | None, str | None]:
    """The encoder or the file that gives vectors; at most one of them.

    Raises:
        ValueError: vectors are requested, and nothing gives them.
    """
    if not config.reads_vectors:
        return None, None
    if config.encoder is not None or config.item_vectors is not None:
        return config.encoder, config.item_vectors
    if config.item_text == "auto":
        is_read = default_encoder is not None and _texts_differ(train, in_training)
        return default_encoder if is_read else None, None
    if default_encoder is None:
        raise ValueError(
            f"`item_text={config.item_text}` needs a source of vectors: name an `encoder`, a file of "
            "`item_vectors` or a pretrained backbone"
        )
    return default_encoder, None


def _texts_differ(train: Dataset, in_training: np.ndarray) -> bool:
    """Whether the texts of items with training events differ: equal vectors cannot be whitened."""
    try:
        texts = ItemTexts.of(train)
    except ValueError:  # there is none
        return False
    pairs = zip(texts.texts, in_training[texts.items], strict=True)
    return len({text for text, is_trained in pairs if is_trained}) > 1


def whitened(vectors: ItemVectors, rows: np.ndarray) -> np.ndarray:
    """Vectors with mean 0 and the identity as covariance over some items, float32 (n_items, D).

    Directions of hardly any variance are left out. An item without a vector has zeros.

    Args:
        vectors: of all items.
        rows: bool (n_items,), the items that choose mean and directions, if they have vectors.

    Raises:
        ValueError: none of these items has a vector, or all have the same.
    """
    chosen = vectors.values[rows & vectors.present].astype(np.float64)
    if not len(chosen):
        raise ValueError("no item with a training event has a vector, so that none can be whitened")
    mean = chosen.mean(0)
    variances, directions = np.linalg.eigh(
        np.cov(chosen - mean, rowvar=False, bias=True).reshape(len(mean), -1)
    )
    kept = variances > SMALLEST_VARIANCE * max(variances[-1], np.finfo(np.float64).tiny)
    if not kept.any():
        raise ValueError("the vectors of all items with training events are equal: give others, or none")
    projection = directions[:, kept] / np.sqrt(variances[kept])
    return ((vectors.values - mean) @ projection * vectors.present[:, None]).astype(np.float32)
