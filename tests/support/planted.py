"""A dataset with words planted in texts that training may not read."""

from collections.abc import Callable, Collection, Iterable
from functools import cache

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import TasteWorld, taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language import loading
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord

STAGE_OBJECTIVES = {"pretrain": ("content", "collaborative"), "finetune": ("content", "recommend")}
QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=2)
WORDS = {"train": "flumquazzling", "validation": "grobvexination", "test": "plixtomberish"}  # part -> word
COLD = "zwickendrall"  # for texts of users and items without training events
Reviewed = Callable[[str, str], str]  # part, review -> review


@cache
def world() -> TasteWorld:
    return taste_world(4, n_users=40, n_items=30, n_events=12)


@cache
def events() -> pl.DataFrame:
    """Each reader's last event is for testing, the one before for validation.

    All events of one reader and of one book are held out.
    """
    from_end = pl.int_range(pl.len(), 0, -1).over("user_id")
    part = (
        pl.when(from_end == 1)
        .then(pl.lit("test"))
        .when(from_end == 2)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
    cold = (pl.col("user_id") == world().user_ids[0]) | (pl.col("item_id") == world().item_ids[0])
    halves = pl.when(from_end % 2 == 0).then(pl.lit("test")).otherwise(pl.lit("validation"))
    return world().events.with_columns(part=pl.when(cold).then(halves).otherwise(part)).drop("rating")


def unchanged(part: str, review: str) -> str:
    return review


def planted(part: str, review: str) -> str:
    return f"a {WORDS[part]} book, {review}"


def held_out_emptied(part: str, review: str) -> str:
    return planted(part, review) if part == "train" else ""


def world_with(
    reviewed: Reviewed = unchanged, frame: pl.DataFrame | None = None, cold: str = "quiet"
) -> Dataset:
    """The data with other reviews or events, or with `cold` in each text of the cold user and item."""
    frame = events() if frame is None else frame
    reviews = [reviewed(*row) for row in frame.select("part", "review_text").iter_rows()]
    about_users = [
        f"reads {cold if user == world().user_ids[0] else 'old'} books" for user in world().user_ids
    ]
    users = pl.DataFrame({"user_id": world().user_ids, "biography": about_users})
    is_cold = pl.col("item_id") == world().item_ids[0]
    texts = [
        pl.when(is_cold).then(pl.format(f"{{}} {cold}", name)).otherwise(name).alias(name)
        for name in ("title", "description", "categories")
    ]
    return Dataset.from_frame(
        frame.with_columns(review_text=pl.Series(reviews)), world().items.with_columns(texts), users
    )


@cache
def learned(
    dataset: Callable[[], Dataset], validated: bool = False
) -> tuple[CLLM4Rec, dict[str, np.ndarray]]:
    """The trained model; weights after each stage; losses, norms and validation metric of each epoch."""
    data, model, results = dataset() if validated else dataset().train, CLLM4Rec(), {}
    for stage in model.stages:
        records: list[EpochRecord] = []
        model.fit_stage(data, stage, QUICK, Hooks(records.append))
        results |= {f"{stage} {name}": array.copy() for name, array in model._arrays().items()}
        for record in records:
            values = record.losses | record.gradient_norms
            values["validation"] = np.nan if record.validation is None else record.validation
            prefix = f"{stage} epoch {record.epoch}"
            results |= {f"{prefix} {name}": np.array(value) for name, value in values.items()}
    return model, results


def assert_bit_identical(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)


def assert_the_same_is_learned(
    first: Callable[[], Dataset],
    second: Callable[[], Dataset],
    validated: bool = False,
    but_for: Collection[str] = (),
) -> None:
    """Training on both datasets gives the same vocabulary and, bit for bit, the same weights and losses.

    Args:
        first, second: give the datasets.
        validated: whether validation events are given too.
        but_for: names of arrays that may differ.
    """
    models, weights = zip(learned(first, validated), learned(second, validated), strict=True)
    assert models[0].tokenizer.text_tokenizer.get_vocab() == models[1].tokenizer.text_tokenizer.get_vocab()
    kept = [
        {name: array for name, array in found.items() if name.split(" ", 1)[1] not in but_for}
        for found in weights
    ]
    assert_bit_identical(*kept)


def texts_for_the_vocabulary(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the tokenizer is trained on."""
    read: list[str] = []
    train_bpe = loading.train_bpe

    def noted(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        read.extend(texts)
        return train_bpe(read)

    monkeypatch.setattr(loading, "train_bpe", noted)
    model = CLLM4Rec()
    model._learn_ids(dataset.train)
    model._build(dataset.train, 0)
    return read


def texts_of_all_corpora(dataset: Dataset) -> dict[tuple[str, str], list[str]]:
    """Inputs and targets of all examples of two epochs, decoded, by stage and objective."""
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=100.0, content_passes="both"))  # all documents in each
    model._learn_ids(dataset.train)
    model.net = model._build(dataset.train, 0)
    texts: dict[tuple[str, str], list[str]] = {}
    for stage in model.stages:
        for objective in model.objectives(dataset.train, stage, QUICK):
            written = texts.setdefault((stage, objective.name), [])
            for epoch in range(2):
                batch = objective.corpus.batch(objective.corpus.selection(epoch), epoch)
                rows = zip(batch.tokens, batch.mask, strict=True)
                written += [model.tokenizer.decode(tokens[mask].tolist()) for tokens, mask in rows]
                if objective.name == "content":
                    written.append(model.tokenizer.decode(batch.target_tokens.tolist()))
    return texts


def mentions(texts: list[str], word: str) -> int:
    return sum(word in text for text in texts)
