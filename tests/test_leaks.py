"""Nothing held out reaches what is learned: no vocabulary, no document, no weight.

Words that stand nowhere else are planted where they may not be read; and what is trained with them, and with other
held-out events, is bit for bit what is trained without.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast

from cllm4rec import finetune, pretrain
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import TasteWorld, taste_world
from cllm4rec.models import SYSTEMS, backbone, system_class
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.content import content_documents
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import EpochRecord

STAGE_OBJECTIVES = {"pretrain": ("content", "collaborative"), "finetune": ("content", "recommend")}
QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=2)
WORDS = {"train": "flumquazzling", "validation": "grobvexination", "test": "plixtomberish"}  # one for each part
COLD = "zwickendrall"  # for texts of users and items without training events
Reviewed = Callable[[str, str], str]  # part, review -> review


@cache
def world() -> TasteWorld:
    return taste_world(4, n_users=40, n_items=30, n_events=12)


@cache
def events() -> pl.DataFrame:
    """Of each reader's books the last is for testing, the one before for validation; one reader and one book are held out
    altogether."""
    from_end = pl.int_range(pl.len(), 0, -1).over("user_id")
    part = pl.when(from_end == 1).then(pl.lit("test")).when(from_end == 2).then(pl.lit("validation")).otherwise(pl.lit("train"))
    cold = (pl.col("user_id") == world().user_ids[0]) | (pl.col("item_id") == world().item_ids[0])
    halves = pl.when(from_end % 2 == 0).then(pl.lit("test")).otherwise(pl.lit("validation"))
    return world().events.with_columns(part=pl.when(cold).then(halves).otherwise(part)).drop("rating")


def as_it_is(part: str, review: str) -> str:
    return review


def planted(part: str, review: str) -> str:
    return f"a {WORDS[part]} book, {review}"


def held_out_emptied(part: str, review: str) -> str:
    return planted(part, review) if part == "train" else ""


def world_with(reviewed: Reviewed = as_it_is, frame: pl.DataFrame | None = None, cold: str = "quiet") -> Dataset:
    """The world with other reviews, with other events, or with another word in each text of the cold reader and book."""
    frame = events() if frame is None else frame
    reviews = [reviewed(*row) for row in frame.select("part", "review_text").iter_rows()]
    about_users = [f"reads {cold if user == world().user_ids[0] else 'old'} books" for user in world().user_ids]
    users = pl.DataFrame({"user_id": world().user_ids, "biography": about_users})
    is_cold = pl.col("item_id") == world().item_ids[0]
    texts = [
        pl.when(is_cold).then(pl.format(f"{{}} {cold}", name)).otherwise(name).alias(name)
        for name in ("title", "description", "categories")
    ]
    return Dataset.from_frame(frame.with_columns(review_text=pl.Series(reviews)), world().items.with_columns(texts), users)


def other_held_out_items(*parts: str) -> pl.DataFrame:
    """The events with other items in the held-out parts named, none of them twice with one user."""
    frame, catalogue = events(), sorted(world().item_ids)
    taken = set(frame.select("user_id", "item_id").iter_rows())
    rows = []
    for row in frame.iter_rows(named=True):
        if row["part"] in parts:
            user, place = row["user_id"], catalogue.index(row["item_id"])
            others = [catalogue[(place + 7 * step) % len(catalogue)] for step in range(1, len(catalogue))]
            row["item_id"] = next(item for item in others if (user, item) not in taken)
            taken.add((user, row["item_id"]))
        rows.append(row)
    return pl.DataFrame(rows, schema=frame.schema)


@cache
def learned(dataset: Callable[[], Dataset], validated: bool = False) -> tuple[CLLM4Rec, dict[str, np.ndarray]]:
    """The model after all stages; its weights after each, and losses, norms and validation metric of each epoch."""
    data, model, found = dataset(), CLLM4Rec(), {}
    for stage in model.stages:
        records: list[EpochRecord] = []
        model.fit(data.train, data.validation if validated else None, QUICK, stage, records.append)
        found |= {f"{stage} {name}": array.copy() for name, array in model._arrays().items()}
        for one in records:
            values = one.losses | one.gradient_norms | {"validation": np.nan if one.validation is None else one.validation}
            found |= {f"{stage} epoch {one.epoch} {name}": np.array(value) for name, value in values.items()}
    return model, found


def assert_equal_to_the_bit(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)


def assert_the_same_is_learned(one: Callable[[], Dataset], other: Callable[[], Dataset], validated: bool = False) -> None:
    models, weights = zip(learned(one, validated), learned(other, validated), strict=True)
    assert models[0].tokenizer.words.get_vocab() == models[1].tokenizer.words.get_vocab()
    assert_equal_to_the_bit(*weights)


def texts_for_the_vocabulary(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokenizer is trained on."""
    read: list[str] = []
    train_bpe = backbone.train_bpe

    def noted(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        read.extend(texts)
        return train_bpe(read)

    monkeypatch.setattr(backbone, "train_bpe", noted)
    model = CLLM4Rec()
    model._learn_ids(dataset.train)
    model._build(dataset.train, 0)
    return read


def texts_of_all_corpora(dataset: Dataset) -> dict[tuple[str, str], list[str]]:
    """Every example of every objective of every stage in several epochs, decoded: what is read, and what is predicted."""
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=100.0))  # all documents in each pass
    model._learn_ids(dataset.train)
    model.net = model._build(dataset.train, 0)
    texts: dict[tuple[str, str], list[str]] = {}
    for stage in model.stages:
        for objective in model._objectives(dataset.train, stage, QUICK):
            written = texts.setdefault((stage, objective.name), [])
            for epoch in range(2):
                batch = objective.corpus.batch(objective.corpus.selection(epoch), epoch)
                rows = zip(batch["tokens"], batch["mask"], strict=True)
                written += [model.tokenizer.decode(tokens[mask].tolist()) for tokens, mask in rows]
                if objective.name == "content":
                    written.append(model.tokenizer.decode(batch["targets"].tolist()))
    return texts


def mentions(texts: list[str], word: str) -> int:
    return sum(word in text for text in texts)


# ---------------------------------------------------------------------------------------------------------- held-out reviews


@cache
def with_planted_reviews() -> Dataset:
    return world_with(planted)


@cache
def with_empty_held_out_reviews() -> Dataset:
    return world_with(held_out_emptied)


def test_the_planted_words_are_where_they_have_to_be() -> None:
    dataset = with_planted_reviews()
    for name, word in WORDS.items():
        reviews = dataset.only(name).interactions.reviews.to_list()
        assert len(reviews) > 30
        assert mentions(reviews, word) == len(reviews)
        for other in set(WORDS) - {name}:
            assert not mentions(dataset.only(other).interactions.reviews.to_list(), word)
    emptied = with_empty_held_out_reviews()
    assert set(emptied.only("validation", "test").interactions.reviews) == {""}
    assert emptied.train.interactions.reviews.equals(dataset.train.interactions.reviews)
    assert emptied.fingerprint != dataset.fingerprint


def test_words_of_held_out_reviews_are_not_in_the_texts_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_for_the_vocabulary(with_planted_reviews(), monkeypatch)
    assert mentions(texts, WORDS["train"]) == len(with_planted_reviews().train.interactions)
    assert not mentions(texts, WORDS["validation"])
    assert not mentions(texts, WORDS["test"])


def test_words_of_held_out_reviews_are_no_pieces() -> None:
    tokenizer = learned(with_planted_reviews)[0].tokenizer.words
    pieces = {name: tokenizer.tokenize(f" {word}") for name, word in WORDS.items()}
    assert len(pieces["train"]) == 1
    for name in ("validation", "test"):
        assert len(pieces[name]) > 3
        assert not any(WORDS[name][:6] in piece for piece in tokenizer.get_vocab())


def test_words_of_held_out_reviews_are_in_no_document() -> None:
    tokenizer = learned(with_planted_reviews)[0].tokenizer
    train = with_planted_reviews().train
    documents = content_documents(train, tokenizer)
    texts = [tokenizer.decode(words) for *_, words in documents]
    assert mentions(texts, WORDS["train"]) == len(train.interactions)
    assert not mentions(texts, WORDS["validation"])
    assert not mentions(texts, WORDS["test"])
    reviewed = [(user, item) for template, _, user, item, _ in documents if template == "review"]
    assert reviewed == list(zip(train.interactions.users.tolist(), train.interactions.items.tolist(), strict=True))


def test_words_of_held_out_reviews_are_in_no_example_of_any_corpus() -> None:
    corpora = texts_of_all_corpora(with_planted_reviews())
    assert set(corpora) == {(stage, name) for stage, own in STAGE_OBJECTIVES.items() for name in own}
    for (stage, name), texts in corpora.items():
        assert (mentions(texts, WORDS["train"]) > 0) == (name == "content"), stage
        assert not mentions(texts, WORDS["validation"]), (stage, name)
        assert not mentions(texts, WORDS["test"]), (stage, name)


@pytest.mark.parametrize("validated", [False, True])
def test_held_out_reviews_change_no_weight(validated: bool) -> None:
    assert_the_same_is_learned(with_planted_reviews, with_empty_held_out_reviews, validated)


def test_training_reviews_do_change_the_weights() -> None:
    """So that the equalities here say something."""
    one, other = learned(with_planted_reviews)[1], learned(world_with)[1]
    assert not np.array_equal(*(learnt["pretrain content.items.weight"] for learnt in (one, other)))
    assert not np.array_equal(*(learnt["finetune collaborative.items.weight"] for learnt in (one, other)))


def test_held_out_reviews_change_nothing_that_the_commands_write(tmp_path: Path) -> None:
    for name, dataset in (("planted", with_planted_reviews()), ("emptied", with_empty_held_out_reviews())):
        dataset.save(tmp_path / name)
        quick = ["--epochs", "1", "--batch-size", "16"]
        pretrain.main(["--dataset", str(tmp_path / name), "--output", str(tmp_path / f"{name} run"), *quick])
        finetune.main(["--run", str(tmp_path / f"{name} run"), *quick])
    for stage in STAGE_OBJECTIVES:
        files = [tmp_path / f"{name} run" / stage for name in ("planted", "emptied")]
        assert_equal_to_the_bit(*(load_file(file / "model.safetensors") for file in files))
        vocabularies = [(file / "backbone" / "tokenizer.json").read_text() for file in files]
        assert vocabularies[0] == vocabularies[1]
        assert WORDS["train"] in vocabularies[0]


# ----------------------------------------------------------------------------------------------------------- held-out events


@cache
def with_other_held_out_items() -> Dataset:
    return world_with(frame=other_held_out_items("validation", "test"))


@cache
def with_other_test_items() -> Dataset:
    return world_with(frame=other_held_out_items("test"))


def test_the_other_events_are_held_out_ones_only() -> None:
    dataset = world_with()
    for other, parts in ((with_other_held_out_items(), ("validation", "test")), (with_other_test_items(), ("test",))):
        assert other.user_ids.ids.equals(dataset.user_ids.ids)
        assert other.item_ids.ids.equals(dataset.item_ids.ids)
        for name in ("train", "validation", "test"):
            same = np.array_equal(other.only(name).interactions.items, dataset.only(name).interactions.items)
            assert same == (name not in parts), name


def test_held_out_events_change_no_weight_where_nothing_is_validated() -> None:
    assert_the_same_is_learned(world_with, with_other_held_out_items)


def test_test_events_change_no_weight_where_training_is_validated() -> None:
    assert_the_same_is_learned(world_with, with_other_test_items, validated=True)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "cllm4rec"])
def test_test_events_change_nothing_that_a_system_of_one_stage_learns(system: str) -> None:
    fitted = [system_class(system)().fit(data.train, data.validation) for data in (world_with(), with_other_test_items())]
    assert fitted[0].config == fitted[1].config
    assert_equal_to_the_bit(*(model._arrays() for model in fitted))


# ------------------------------------------------------------------------- texts of users and items without training events


@cache
def with_cold_texts() -> Dataset:
    return world_with(cold=COLD)


@cache
def without_cold_texts() -> Dataset:
    """The cold reader and the cold book have no texts at all."""
    dataset = world_with()
    users = dataset.users.with_columns(
        biography=pl.when(pl.col("user_id") == world().user_ids[0]).then(pl.lit("")).otherwise("biography")
    )
    blank = pl.when(pl.col("item_id") == world().item_ids[0]).then(pl.lit("")).otherwise(pl.exclude("item_id")).name.keep()
    return replace(dataset, users=users, items=dataset.items.with_columns(blank))


def test_the_cold_reader_and_the_cold_book_have_texts_and_no_training_events() -> None:
    dataset = with_cold_texts()
    user, item = dataset.user_ids.index(world().user_ids[:1])[0], dataset.item_ids.index(world().item_ids[:1])[0]
    assert user not in dataset.train.interactions.users
    assert item not in dataset.train.interactions.items
    assert user in dataset.interactions.users
    assert item in dataset.interactions.items
    assert [user] == [number for number, text in enumerate(dataset.user_texts["biography"]) if COLD in text]
    for texts in dataset.item_texts.values():
        assert [item] == [number for number, text in enumerate(texts) if COLD in text]


def test_texts_without_training_events_are_not_in_the_texts_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not mentions(texts_for_the_vocabulary(with_cold_texts(), monkeypatch), COLD)


def test_texts_without_training_events_are_in_no_document() -> None:
    dataset = with_cold_texts()
    tokenizer = learned(with_cold_texts)[0].tokenizer
    documents = content_documents(dataset.train, tokenizer)
    assert not mentions([tokenizer.decode(words) for *_, words in documents], COLD)
    of_users = {user for template, _, user, _, _ in documents if template == "user"}
    of_items = {item for template, _, _, item, _ in documents if template == "item"}
    assert of_users == set(dataset.train.interactions.users.tolist())
    assert of_items == set(dataset.train.interactions.items.tolist())


def test_texts_without_training_events_are_in_no_example_of_any_corpus() -> None:
    for place, texts in texts_of_all_corpora(with_cold_texts()).items():
        assert texts
        assert not mentions(texts, COLD), place


def test_texts_without_training_events_change_no_weight() -> None:
    assert_the_same_is_learned(with_cold_texts, without_cold_texts)
