"""The defects of CLLM4Rec's released code that show in behaviour: none of them is here. One test or more for each."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models import backbone, neural
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.content import ContentCorpus, content_documents
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions, RecommendationCorpus
from cllm4rec.text.prompts import Template
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import EpochRecord

QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=5)


@cache
def small_world() -> Dataset:
    world = taste_world(2, n_users=50, n_items=40, n_events=12)
    return build_dataset(world.events, world.items)


@cache
def model() -> CLLM4Rec:
    """Both stages, quickly."""
    fitted = CLLM4Rec()
    for stage in fitted.stages:
        fitted.fit(small_world().train, small_world().validation, QUICK, stage)
    return fitted


def recommendation_corpus(**options: Any) -> RecommendationCorpus:
    return RecommendationCorpus(
        small_world().train.interactions, model().tokenizer, HistoryOptions(**{"context": 1024, **options})
    )


def by_row(rows: Tensor, values: Tensor, n: int) -> list[list[int]]:
    return [values[rows == row].tolist() for row in range(n)]


def items_of(tokens: Tensor) -> list[int]:
    """Item numbers of the item tokens, in their order."""
    first = model().tokenizer.n_words + small_world().n_users
    return (tokens[tokens >= first] - first).tolist()


def histories(corpus: RecommendationCorpus | CollaborativeCorpus, examples: np.ndarray) -> list[list[int]]:
    return [corpus.train.history(user).tolist() for user in corpus.users[examples]]


# 1: the regulariser of finetuning encoded the text "item_tensor(0)" and touched no item


def test_finetuning_regulariser_touches_the_items_of_the_prompt() -> None:
    net, n_users = model().net, small_world().n_users
    corpus = recommendation_corpus(user_dropping=0.0)
    batch = corpus.batch(np.arange(5), epoch=0)
    table = net.collaborative.whole()
    apart = torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    kept = net.content.whole()
    try:
        net.content.fill(table + apart)
        net.zero_grad()
        net("recommend", batch)["mutual"].backward()
        users, items = (side.weight.grad for side in (net.collaborative.users, net.collaborative.items))
        gradient = torch.cat([users.to_dense(), items])
        pulled = gradient.abs().sum(1) > 0
        expected = torch.zeros(len(table))
        expected.index_add_(0, batch["ids"], batch["weights"])
        torch.testing.assert_close(gradient, -apart * expected[:, None], rtol=1e-4, atol=1e-6)
    finally:
        net.content.fill(kept)
        net.zero_grad()
    in_prompt = {n_users + item for item in items_of(batch["tokens"][batch["mask"]])}
    users = set(corpus.users[:5].tolist())
    assert len(in_prompt) > 5
    assert set(torch.nonzero(pulled).flatten().tolist()) == in_prompt | users


# 2: the targets were all items of the history though the masked ones were meant


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("targets", ["unseen", "masked"])
def test_targets_are_the_masked_items_only(order: str, targets: str) -> None:
    corpus = recommendation_corpus(order=order, targets=targets, mask_share=0.3)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    wanted = by_row(batch["rows"], batch["targets"], len(examples))
    left_out = by_row(batch["shown_rows"], batch["shown"], len(examples))
    for row, history in enumerate(histories(corpus, examples)):
        shown = items_of(batch["tokens"][row][batch["mask"][row]])
        assert shown
        assert wanted[row]
        assert not set(shown) & set(wanted[row])
        assert sorted(shown + wanted[row]) == sorted(history)
        assert left_out[row] == (shown if targets == "unseen" else [])


def test_all_items_are_targets_only_where_that_was_asked_for() -> None:
    corpus = recommendation_corpus(targets="all")
    examples = np.arange(10)
    batch = corpus.batch(examples, epoch=0)
    wanted = by_row(batch["rows"], batch["targets"], 10)
    assert [sorted(one) for one in wanted] == [sorted(one) for one in histories(corpus, examples)]


def test_a_user_with_one_training_item_learns_from_the_user_token_alone() -> None:
    train = Interactions(np.array([0, 1, 1]), np.array([4, 5, 6]), small_world().n_users, small_world().n_items)
    corpus = RecommendationCorpus(train, model().tokenizer, HistoryOptions(1024, user_dropping=1.0))
    batch = corpus.batch(np.array([0, 1]), epoch=0)
    assert items_of(batch["tokens"][0]) == []
    assert (batch["tokens"][0] == model().tokenizer.user(0)).any()
    assert by_row(batch["rows"], batch["targets"], 2)[0] == [4]
    assert len(items_of(batch["tokens"][1])) == 1


# 3: the masking ratio was ignored


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_masking_ratio_is_respected(share: float) -> None:
    corpus = recommendation_corpus(mask_share=share)
    examples = corpus.selection(1)
    batch = corpus.batch(examples, epoch=1)
    masked = by_row(batch["rows"], batch["targets"], len(examples))
    for history, hidden in zip(histories(corpus, examples), masked, strict=True):
        n = len(history)
        assert abs(len(hidden) - share * n) <= 0.5 + 1e-9 or len(hidden) in (1, n - 1)
        assert 1 <= len(hidden) <= max(1, n - 1)


def test_masked_items_are_drawn_anew_each_epoch() -> None:
    corpus = recommendation_corpus(mask_share=0.5)
    examples = np.arange(20)
    drawn = [corpus.batch(examples, epoch) for epoch in (0, 1, 0)]
    hidden = [[sorted(one) for one in by_row(batch["rows"], batch["targets"], 20)] for batch in drawn]
    assert sum(a != b for a, b in zip(hidden[0], hidden[1], strict=True)) > 15
    assert hidden[0] == hidden[2]


# 4: truncation removed the query


def query_tokens(name: str = "recommend") -> list[int]:
    """Words of the template behind its history, with the user token as None."""
    template = Template.compile(name, model().tokenizer)
    behind = template.pieces[template.history + 1 :]
    return [token for piece in behind for token in ([-1] if isinstance(piece, str) else piece.tolist())]


@pytest.mark.parametrize("order", ["random", "time"])
def test_truncation_keeps_the_query(order: str) -> None:
    words = [token for token in query_tokens() if token >= 0]
    fixed = Template.compile("recommend", model().tokenizer).n_fixed
    corpus = recommendation_corpus(order=order, context=fixed + 3, mask_share=0.1)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    assert max(len(history) for history in histories(corpus, examples)) > 10
    for row, history in enumerate(histories(corpus, examples)):
        tokens = batch["tokens"][row][batch["mask"][row]]
        behind = [token for token in tokens.tolist()[-len(query_tokens()) :] if token < model().tokenizer.n_words]
        assert len(tokens) <= fixed + 3
        assert behind[-len(words) :] == words
        shown = items_of(tokens)
        assert len(shown) <= 3
        if order == "time" and len(history) > 12:
            n_masked = int((batch["rows"] == row).sum())
            assert shown == history[: len(history) - n_masked][-3:], "the oldest items are left out"


def test_truncation_keeps_the_query_when_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, net = small_world(), model().net
    fixed = Template.compile("recommend", model().tokenizer).n_fixed
    read: list[list[int]] = []
    original: Callable[..., Tensor] = net.user_states

    def noted(batch: dict[str, Tensor], finetuned: bool = True) -> Tensor:
        read.extend(tokens[mask].tolist() for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True))
        return original(batch, finetuned)

    monkeypatch.setattr(backbone, "CONTEXT", fixed + 4)
    monkeypatch.setattr(net, "user_states", noted)
    users = np.arange(dataset.n_users)
    assert np.isfinite(model().score(users, dataset.train)).all()
    assert len(read) == dataset.n_users
    histories_of = {user: dataset.train.interactions.history(user).tolist() for user in users}
    for tokens in read:
        user = tokens[0] - model().tokenizer.n_words
        expected = [model().tokenizer.user(user) if token == -1 else token for token in query_tokens()]
        assert tokens[-len(expected) :] == expected
        assert len(tokens) <= fixed + 4
        assert items_of(torch.tensor(tokens)) == histories_of[user][-4:], "the newest items are kept"


# 5: no reordering and no shuffling in pretraining


def test_items_are_reordered_and_examples_shuffled_in_pretraining() -> None:
    objectives = {one.name: one for one in model()._objectives(small_world().train, "pretrain", QUICK)}
    corpus = objectives["collaborative"].corpus
    assert isinstance(corpus, CollaborativeCorpus)
    selections = [corpus.selection(epoch) for epoch in range(3)]
    for one, other in zip(selections, selections[1:], strict=False):
        assert not np.array_equal(one, other)
        assert not np.array_equal(one, np.arange(len(one)))
        np.testing.assert_array_equal(np.sort(one), np.arange(len(corpus.users)))
    examples = np.arange(len(corpus.users))
    texts = []
    for epoch in (0, 1):
        batch = corpus.batch(examples, epoch)
        texts.append([items_of(batch["tokens"][row][batch["mask"][row]]) for row in range(len(examples))])
    moved, ascending = 0, 0
    for one, other, history in zip(*texts, histories(corpus, examples), strict=True):
        assert sorted(one) == sorted(other) == sorted(history)
        moved += one != other
        ascending += one == sorted(one)
    assert moved > 0.9 * len(examples)
    assert ascending < 0.1 * len(examples)


def test_documents_are_shuffled_in_content_passes() -> None:
    documents = content_documents(small_world().train, model().tokenizer)
    corpus = ContentCorpus(documents, model().tokenizer, HistoryOptions(1024), tokens_per_pass=10**9)
    one, other = corpus.selection(0), corpus.selection(1)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(np.sort(one), np.sort(other))


def test_the_order_of_an_example_depends_on_seed_and_epoch_not_on_its_batch() -> None:
    corpus = recommendation_corpus(user_dropping=0.3)
    together = corpus.batch(np.arange(12), epoch=4)
    for example in range(12):
        alone = corpus.batch(np.array([example]), epoch=4)
        tokens = together["tokens"][example][together["mask"][example]]
        assert tokens.tolist() == alone["tokens"][0].tolist()
    other_seed = recommendation_corpus(user_dropping=0.3, seed=1).batch(np.arange(12), epoch=4)
    assert other_seed["tokens"].tolist() != together["tokens"].tolist()


# 6: one user without test items turned every metric into NaN


def test_user_without_test_items_does_not_make_metrics_nan() -> None:
    dataset = small_world()
    without = np.unique(dataset.test.interactions.users)[:7]
    part = np.where(np.isin(dataset.interactions.users, without) & (dataset.part == 2), 0, dataset.part).astype(np.uint8)
    fewer = replace(dataset, part=part)
    assert (np.diff(fewer.test.interactions.indptr)[without] == 0).all()
    measured = measure(model(), fewer.train, fewer.test)
    assert all(np.isfinite(value) for value in measured.metrics.values())
    assert not set(without) & set(measured.users)
    others = np.setdiff1d(np.unique(dataset.test.interactions.users), without)
    same = measure(model(), fewer.train, fewer.test, users=others)
    for name in measured.per_user:
        assert measured.metrics[name] == pytest.approx(same.metrics[name])


# 7: the pad id is the id of a word and must change nothing


@pytest.mark.parametrize("finetuned", [False, True], ids=["pretraining", "finetuning"])
def test_padding_token_changes_nothing(finetuned: bool) -> None:
    net = model().net
    corpus = recommendation_corpus()
    batch = corpus.batch(np.arange(8), epoch=0)
    assert not batch["mask"].all(), "examples of unequal length"
    states = net.user_states(batch, finetuned).detach()
    for filler in (1, net.backbone.n_words - 1, net.backbone.n_words + 5):
        other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], filler)}
        torch.testing.assert_close(net.user_states(other, finetuned).detach(), states, rtol=1e-6, atol=1e-6)


def test_padding_token_gets_no_gradient() -> None:
    net = model().net
    net.zero_grad()
    batch = recommendation_corpus(user_dropping=0.0).batch(np.arange(8), epoch=0)
    net("recommend", batch)["recommend"].backward()
    words = net.backbone.words.grad.abs().sum(1)
    net.zero_grad()
    in_prompts = set(batch["tokens"][batch["mask"]].unique().tolist())
    assert 0 not in in_prompts
    assert (~batch["mask"]).any()
    assert batch["tokens"][~batch["mask"]].unique().tolist() == [0]
    assert set(torch.nonzero(words).flatten().tolist()) <= in_prompts


# 8: the best weights were chosen by the training loss


def test_best_weights_are_chosen_by_validation_not_training_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities, records, after_epoch = iter([0.3, 0.4, 0.2, 0.1]), [], []
    monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(qualities))
    other = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))

    def on_epoch(record: EpochRecord) -> None:
        records.append(record)
        after_epoch.append(other.net.collaborative.whole())

    other.fit(small_world().train, small_world().validation, replace(QUICK, epochs=4), "pretrain", on_epoch)
    training_losses = [record.losses["collaborative"] for record in records]
    assert int(np.argmin(training_losses)) == 3, "the training loss falls to the end"
    assert torch.equal(other.net.collaborative.whole(), after_epoch[1])


# 9: validation was repeated whole on every rank


class NotingScorer:
    """Scores by item number and notes whom it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        self.asked += users.tolist()
        return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None])).astype(np.float32)


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_validation_is_shared_among_ranks(n_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks are threads here: each scores its own users only, and all get the value of one process."""
    dataset = small_world()
    barrier, given, scorers = threading.Barrier(n_ranks), {}, [NotingScorer() for _ in range(n_ranks)]
    values: dict[int, float] = {}

    def gather(objects: list[object]) -> list[object]:
        given[threading.current_thread().name] = objects
        barrier.wait(timeout=60)
        return [one for name in sorted(given) for one in given[name]]

    def run(rank: int) -> None:
        accelerator: Any = SimpleNamespace(process_index=rank, num_processes=n_ranks)
        scorer: Any = scorers[rank]
        values[rank] = neural.shared_validation(scorer, dataset.train, dataset.validation, accelerator)

    monkeypatch.setattr(neural, "gather_object", gather)
    ranks = [threading.Thread(target=run, args=(rank,), name=str(rank)) for rank in range(n_ranks)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(timeout=120)
    users = np.unique(dataset.validation.interactions.users).tolist()
    assert sorted(user for scorer in scorers for user in scorer.asked) == users, "each user once"
    sizes = [len(scorer.asked) for scorer in scorers]
    assert max(sizes) - min(sizes) <= 1
    alone = measure(NotingScorer(), dataset.train, dataset.validation).metrics["ndcg@100"]
    assert list(values.values()) == pytest.approx([alone] * n_ranks, rel=1e-12)


RANK = """
import json, os, sys
from accelerate import Accelerator
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load
from cllm4rec.models.neural import shared_validation

model, dataset = load(sys.argv[1]), Dataset.load(sys.argv[2])
asked, score = [], model.score
model.score = lambda users, seen: (asked.extend(users.tolist()), score(users, seen))[1]
accelerator = Accelerator(cpu=True)
value = shared_validation(model, dataset.train, dataset.validation, accelerator)
with open(f"{sys.argv[3]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"asked": asked, "value": value, "n": accelerator.num_processes}, file)
accelerator.state.destroy_process_group()
"""


@pytest.mark.slow
def test_validation_is_shared_among_two_processes(tmp_path: Path) -> None:
    from cllm4rec.training.checkpoint import RunFolder

    small_world().save(tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    run = RunFolder.create(tmp_path / "run", "cllm4rec", dataset, tmp_path / "data")
    run.begin_stage("finetune", system={})
    model().save(run.path / "finetune")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    arguments = [str(one) for one in (script, tmp_path / "run", tmp_path / "data", tmp_path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *command, *arguments], check=True, env=environment, timeout=300)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["n"] for rank in ranks] == [2, 2]
    users = np.unique(dataset.validation.interactions.users).tolist()
    assert sorted(ranks[0]["asked"] + ranks[1]["asked"]) == users
    alone = measure(model(), dataset.train, dataset.validation).metrics["ndcg@100"]
    assert ranks[0]["value"] == ranks[1]["value"] == pytest.approx(alone, rel=1e-6)


# 10: reviews of held-out pairs could be in the corpus


def test_reviews_of_held_out_events_are_in_no_corpus_and_no_vocabulary() -> None:
    learned, secret = "flumquazzling", "grobvexination"
    dataset = small_world()
    events = dataset.interactions
    texts = [f"quite a {learned if part == 0 else secret} book" for part in dataset.part]
    planted = replace(dataset, interactions=replace(events, reviews=pl.Series(texts)))
    for held_out in (planted.validation, planted.test):
        assert secret in held_out.interactions.reviews[0]
    fitted = CLLM4Rec().fit(planted.train, planted.validation, replace(QUICK, epochs=1), "pretrain")
    tokenizer = fitted.tokenizer.words
    assert len(tokenizer.tokenize(f" {learned}")) == 1, "a word of the training reviews is one piece"
    assert len(tokenizer.tokenize(f" {secret}")) > 3
    assert not any(secret[:6] in piece for piece in tokenizer.get_vocab())
    documents = content_documents(planted.train, fitted.tokenizer)
    written = [tokenizer.decode(words) for *_, words in documents]
    assert sum(learned in text for text in written) == len(planted.train.interactions)
    assert not any(secret in text for text in written)
    reviewed = {(user, item) for template, _, user, item, _ in documents if template == "review"}
    held_out = planted.only("validation", "test").interactions
    assert not reviewed & set(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))


def test_held_out_items_are_in_no_history() -> None:
    dataset = small_world()
    held_out = dataset.only("validation", "test").interactions
    pairs = set(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))
    for stage in model().stages:
        for objective in model()._objectives(dataset.train, stage, QUICK):
            corpus = objective.corpus
            if not isinstance(corpus, CollaborativeCorpus | RecommendationCorpus):
                continue
            examples = np.arange(len(corpus.users))
            batch = corpus.batch(examples, epoch=0)
            for row, user in enumerate(corpus.users.tolist()):
                items = items_of(batch["tokens"][row][batch["mask"][row]])
                items += batch["targets"][batch["rows"] == row].tolist() if objective.name == "recommend" else []
                assert items
                assert not pairs & {(user, item) for item in items}


# 11: the first item of every main text was never predicted


@pytest.mark.parametrize("user_dropping", [0.0, 1.0])
def test_first_item_of_every_main_text_is_predicted(user_dropping: float) -> None:
    options = HistoryOptions(1024, user_dropping=user_dropping)
    corpus = CollaborativeCorpus(small_world().train.interactions, model().tokenizer, options)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    width = batch["tokens"].shape[1]
    template = Template.compile("collaborative", model().tokenizer)
    last_word = int(template.pieces[template.history - 1][-1])
    for row, history in enumerate(histories(corpus, examples)):
        own = batch["read"] // width == row
        predicted = batch["targets"][batch["rows"][own]]
        items = items_of(batch["tokens"][row][batch["mask"][row]])
        assert predicted.tolist() == items
        assert sorted(items) == sorted(history)
        place = int(batch["read"][own][0]) % width
        assert batch["tokens"][row, place] == last_word, "the first item is predicted from the prompt's last token"
        assert items_of(batch["tokens"][row, place + 1 : place + 2]) == items[:1]


@pytest.mark.parametrize("user_dropping", [0.0, 1.0])
def test_first_word_and_the_end_of_every_text_are_predicted(user_dropping: float) -> None:
    tokenizer = model().tokenizer
    documents = content_documents(small_world().train, tokenizer)
    corpus = ContentCorpus(documents, tokenizer, HistoryOptions(1024, user_dropping=user_dropping), 10**9)
    examples = corpus.selection(0)[:64]
    batch = corpus.batch(examples, epoch=0)
    width = batch["tokens"].shape[1]
    assert {documents[example][0] for example in examples} == {"item", "review"}
    for row, example in enumerate(examples):
        template, field, _, _, words = documents[example]
        own = batch["read"] // width == row
        assert batch["targets"][own].tolist() == [*words.tolist(), tokenizer.end]
        first = int(batch["read"][own][0]) % width
        last_word = Template.compile(template, tokenizer, field).pieces[-1][-1]
        assert batch["tokens"][row, first] == int(last_word)
        assert batch["tokens"][row, first + 1] == words[0]
