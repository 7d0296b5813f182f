"""The audit: planted leaks of each kind are caught, copies of held-out reviews are found."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cllm4rec.corpora import histories, history_sets
from cllm4rec.data.audit import LeakError, auditing, learns_from
from cllm4rec.data.dataset import PARTS, Dataset
from cllm4rec.data.review_copies import FEWEST_CHARACTERS, FEWEST_WORDS, copied_reviews
from cllm4rec.evaluation import measure, measure_choices
from cllm4rec.models import SYSTEMS, load
from cllm4rec.models.baselines import ease
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.cllm4rec import initialisation, recommender
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.item_vectors import sources
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.pooling import alpharec
from cllm4rec.models.readings.item_vectors import item_vectors
from cllm4rec.models.rsllm import recommender as rsllm
from cllm4rec.models.sequential import base as sequential
from cllm4rec.training.config import TrainConfig
from tests.support.commands import call
from tests.support.encoders import Letters
from tests.support.planted import planted, world_with
from tests.support.systems import ONE_STAGE, VARIANTS, fit, new_system
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

ONE_EPOCH = TrainConfig(epochs=1, batch_size=16)


@cache
def data() -> Dataset:
    """Readers and books with reviews; the last two events of each reader are held out."""
    return world_with(planted)


@cache
def leaking() -> Dataset:
    """The same where all events are training events."""
    return replace(data(), part=np.zeros_like(data().part))


def leaking_data(function: Callable[..., Any], position: int = 0) -> Callable[..., Any]:
    """The function, given all events in place of the training events at a position of its arguments."""

    def called(*arguments: Any, **further: Any) -> Any:
        given = arguments[position]
        leak = leaking() if isinstance(given, Dataset) else leaking().interactions
        assert len(leak.interactions if isinstance(leak, Dataset) else leak) > len(data().train.interactions)
        return function(*arguments[:position], leak, *arguments[position + 1 :], **further)

    return called


@dataclass(frozen=True)
class Leak:
    """A part of a system that is given all events in place of the training events.

    Attributes:
        part: its name in the error.
        owner, function: that is called.
        position: of the events among its arguments.
        stage: that calls it.
        system: that has it.
        settings: of the system.
    """

    part: str
    owner: object
    function: str
    position: int = 0
    stage: str = "pretrain"
    system: str = "cllm4rec"
    settings: Mapping[str, object] = field(default_factory=dict)


LEAKS = {
    "pairs in prompts of pretraining": Leak("training histories", recommender, "CollaborativeCorpus"),
    "pairs in prompts of finetuning": Leak(
        "training histories", recommender, "RecommendationCorpus", stage="finetune"
    ),
    "reviews in documents": Leak("reviews and texts", recommender, "content_documents"),
    "reviews in the vocabulary": Leak("the vocabulary", CLLM4Rec, "_build", 1),
    "reviews in words of items": Leak("words of items", sources, "item_documents"),
    "events in initial factors": Leak("initial factors", initialisation, "als_factors"),
    "events in whitened vectors": Leak("whitened vectors of texts", sources, "_vectors", 1),
    "events in the prior of texts": Leak("the prior of texts", ease, "TextPrior", 1, "finetune"),
    "events in the linear path": Leak("the fit of ease", ease.EASE, "fit", 1, "finetune"),
    "events in the sampled softmax": Leak(
        "the item sampler", histories, "ItemSampler", settings={"sampled": 8}
    ),
    "pairs in prompts of RSLLM": Leak("prompts", rsllm, "AnswerCorpus", system="rsllm"),
    "pairs in sequences": Leak("training histories", sequential, "NextItemCorpus", system="sasrec"),
    "pairs in sets": Leak("training histories", history_sets, "TrainingHistories", system="bag"),
    "pairs in the graph": Leak("the graph", alpharec, "TrainingGraph", system="alpharec"),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_stops_training(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leak, settings = LEAKS[kind], dict(LEAKS[kind].settings)
    if leak.system == "cllm4rec":
        vectors = np.random.default_rng(0).normal(size=(data().n_items, 6)).astype(np.float32)
        np.save(tmp_path / "vectors.npy", vectors)
        vectors_file = str(tmp_path / "vectors.npy")
        settings |= {"backbone": "1x64", "item_text": "both", "item_vectors": vectors_file}
    model = new_system(leak.system, **settings)
    assert isinstance(model, NeuralRecommender)
    if leak.stage == "finetune":
        model.fit_stage(data(), "pretrain", ONE_EPOCH)
    leaking_function = leaking_data(getattr(leak.owner, leak.function), leak.position)
    monkeypatch.setattr(leak.owner, leak.function, leaking_function)
    expected = rf"^{leak.part} would learn from \d+ held-out events, the first of user '.+' and item '.+'$"
    with pytest.raises(LeakError, match=expected):
        model.fit_stage(data(), leak.stage, ONE_EPOCH)


def test_held_out_reviews_do_not_reach_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no item has a text, an encoder reads the reviews of training events."""
    without_texts = replace(data(), items=data().items.select("item_id"))
    with auditing(without_texts, "pretrain"):
        item_vectors(without_texts.train, Letters())
        monkeypatch.setattr(Dataset, "train", property(lambda self: replace(leaking(), items=self.items)))
        with pytest.raises(LeakError, match="^reviews and texts would learn from"):
            item_vectors(without_texts, Letters(), standardise=False)


def test_training_without_a_leak_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cllm4rec.audit")
    model = CLLM4Rec(CLLM4RecConfig(backbone="1x64"))
    parts = []
    for stage in model.stages:
        model.fit_stage(data(), stage, ONE_EPOCH)
        result, *details = [record.getMessage() for record in caplog.records if record.name.endswith("audit")]
        n_held_out = len(data().only("validation", "test").interactions)
        opening = f"audit: {stage}: none of {n_held_out} held-out events is among the training events of "
        assert result.startswith(opening)
        names = result.removeprefix(opening).split(", ")
        n_train = len(data().train.interactions)
        assert details == [f"audit: {stage}: {name}: {n_train} training events" for name in names]
        parts.append(set(names))
        caplog.clear()
    both = {"training histories", "initial factors", "words of items"}
    assert parts[0] == both | {"reviews and texts", "the vocabulary"}
    assert parts[1] == both | {"the fit of ease", "the prior of texts"}


@pytest.mark.parametrize("name", [*SYSTEMS, *VARIANTS])
def test_every_system_refuses_held_out_events(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "train", property(lambda dataset: dataset.known))
    with pytest.raises(LeakError):
        fit(new_system(name), data(), ONE_EPOCH)


@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_system_of_one_stage_logs_the_audit_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cllm4rec.audit")
    new_system(name).fit(data())
    (record,) = [record for record in caplog.records if record.name == "cllm4rec.audit"]
    assert record.getMessage().startswith(f"audit: {name}: none of ")
    assert record.getMessage().endswith(f"is among the training events of the fit of {name}")


def test_nothing_is_compared_outside_an_audit() -> None:
    learns_from("a part", data().test.interactions)
    with auditing(data(), "a test"), pytest.raises(LeakError, match="^a part would learn from"):
        learns_from("a part", data().test.interactions)
    learns_from("a part", data().test.interactions)


def test_an_inner_audit_is_that_of_the_outer_block() -> None:
    with auditing(data(), "outer") as outer, auditing(leaking(), "inner") as inner:
        assert inner is outer


def test_measuring_refuses_an_input_with_held_out_events(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Popularity().fit(data())
    monkeypatch.setattr(Dataset, "seen", property(lambda dataset: dataset.only("train", "test")))
    for measured in (measure, lambda *arguments: measure_choices(*arguments, candidates=3)):
        fresh = replace(data())
        with pytest.raises(LeakError, match=r"^the input has \d+ held-out events, the first of user"):
            measured(model, fresh, "test")


def test_measuring_refuses_to_hold_out_what_was_learned(tmp_path: Path) -> None:
    dataset = taste_dataset()
    other = replace(dataset, part=np.roll(dataset.part, 1), stored_hashes=None)
    reordered = Dataset.from_frame(  # other numbers of users
        pl.DataFrame(
            {
                "user_id": dataset.user_ids.names(other.interactions.users),
                "item_id": dataset.item_ids.names(other.interactions.items),
                "part": pl.Series(PARTS).gather(other.part),
            }
        ).filter(pl.col("user_id") != dataset.user_ids.ids[0]),
        dataset.items,
    )
    dataset.save(tmp_path / "data")
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    for model in (new_system("popularity").fit(dataset), load(tmp_path / "run")):
        measure(model, dataset)
        measure(model, replace(dataset, stored_hashes=None))
        for held_out_elsewhere in (other, reordered):
            for measured in (measure, measure_choices):
                message = refused(measured, model, held_out_elsewhere, "test")
                assert "the system was fitted on another split, which trains with" in message
    shutil.rmtree(tmp_path / "data")
    gone = load(tmp_path / "run")
    assert measure(gone, other).metrics["ndcg@100"] > 0, "the dataset of the run is not known"


LONG = "The plot turns on a letter that nobody ever reads"
SHORT = " ".join(["aye"] * (FEWEST_WORDS - 1))
UNSPACED = "本" * FEWEST_CHARACTERS


def with_texts(train_review: str, description: str, biography: str, held_out: str) -> Dataset:
    """Two users and two items, each user with a training and a test event; one test review is `held_out`."""
    events = pl.DataFrame(
        {
            "user_id": ["ann", "ann", "bob", "bob"],
            "item_id": ["x", "y", "y", "x"],
            "part": ["train", "test", "train", "test"],
            "review_text": [train_review, held_out, "another review altogether, and a long one too", ""],
        }
    )
    items = pl.DataFrame({"item_id": ["x", "y"], "description": [description, ""]})
    users = pl.DataFrame({"user_id": ["ann", "bob"], "biography": ["", biography]})
    return Dataset.from_frame(events, items, users)


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        ((LONG, "", "", LONG), "a training review"),
        (("", f"Readers say: {LONG}!", "", LONG), "a text of the column description"),
        (("", "", f"{LONG}. {LONG}.", LONG), "a text of the column biography"),
        (("", LONG.upper().replace(" ", "\n  "), "", LONG), "a text of the column description"),
        (("The plot turns; on a letter&#39; that nobody ever reads!", "", "", LONG), "a training review"),
        (("", f"{UNSPACED}本", "", UNSPACED), "a text of the column description"),
        (("cafe\u0301 " * 8, "", "", "caf\u00e9 " * 8), "a training review"),
        ((f"{LONG}, they say", "", "", LONG), None),
        (("", UNSPACED[1:], "", UNSPACED[1:]), None),
        ((SHORT, SHORT, SHORT, SHORT), None),
        (("", "", "", LONG), None),
        (("", LONG[:-1], "", LONG), None),
    ],
)
def test_a_held_out_review_is_found_in_other_texts(
    texts: tuple[str, str, str, str], place: str | None
) -> None:
    result = copied_reviews(with_texts(*texts))
    found = [str(copy) for copy in result.copies]
    assert result.n_looked_for == (texts[-1] not in (SHORT, UNSPACED[1:]))
    assert found == ([] if place is None else [f"the review of user 'ann' and item 'y' is in {place}"])


def test_reviews_are_found_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cllm4rec.data.review_copies.REVIEWS_AT_ONCE", 3)
    dataset = world_with(lambda part, review: f"{part} {review} and then some more words of the reader here")
    held_out = dataset.only("validation", "test").interactions
    assert held_out.reviews is not None
    items = dataset.items.with_columns(description=pl.lit(" ".join(held_out.reviews)))
    found = copied_reviews(replace(dataset, items=items))
    assert len(found.copies) == found.n_looked_for == len(held_out)
    assert not copied_reviews(dataset).copies


def test_the_commands_print_the_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    events = pl.DataFrame(
        {
            "user_id": ["ann"] * 3 + ["bob"] * 3,
            "item_id": list("xyzxzy"),
            "position": [1, 2, 3] * 2,
            "review_text": [LONG, "", LONG, "", "", "short"],
        }
    )
    events.write_csv(tmp_path / "events.csv")
    prepare = ("--interactions", tmp_path / "events.csv", "--split", "leave-last-out")
    result = "audit: none of 4 held-out events is a training event"
    long = "held-out reviews of at least 8 words or 40 characters"
    found = f"audit: {long} that are also in training texts: 1 of 1"
    copy = "audit: the review of user 'ann' and item 'z' is in a training review"
    hint = f"{found} (--audit names them)"
    for flags, lines in (((), [result, hint]), (("--audit",), [result, found, copy])):
        call("prepare", *prepare, "--output", tmp_path / "data", *flags)
        assert audit_lines(capsys.readouterr().out) == lines
    caplog.set_level(logging.DEBUG)
    training = ("--dataset", tmp_path / "data", "--system", "popularity")
    part = "the fit of popularity"
    result = f"audit: popularity: none of 4 held-out events is among the training events of {part}"
    for number, flags in enumerate(((), ("--audit",))):
        caplog.clear()
        call("pretrain", *training, "--output", tmp_path / f"run{number}", *flags)
        details = [f"audit: popularity: {part}: 2 training events"] if flags else []
        assert audit_lines(caplog.text, "audit: ") == [result, *details]
    call("evaluate", "--run", tmp_path / "run0", "--audit")
    sums = Dataset.load(tmp_path / "data").hashes
    assert audit_lines(capsys.readouterr().out) == [
        "audit: none of 2 test events was input; the run was trained on this dataset and split",
        "audit: input: 4 events",
        "audit: held out: 2 events",
        "audit: masked: 4 events",
        f"audit: data_sha256 {sums.data_sha256}, split_sha256 {sums.split_sha256}",
    ]


def audit_lines(text: str, mark: str = "audit: ") -> list[str]:
    """The lines of the audit, from `mark` on."""
    return [mark + line.partition(mark)[2] for line in text.splitlines() if mark in line]
