"""Answers in words: likelihoods of titles, and generated titles."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure_choices
from cllm4rec.models.rsllm import answers
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.generation import Beginning, generate, likelihoods
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.config import TrainConfig
from tests.support.rsllm import sasrec, small_dataset, trained, untrained
from tests.support.worlds import cycle_dataset


def test_certain_answers_are_given() -> None:
    dataset = cycle_dataset(titled=True)
    model = RSLLM(RSLLMConfig(dropout=0.1, length=3))
    model.fit_stage(dataset.train, "pretrain", TrainConfig(epochs=60, batch_size=16, learning_rate=1e-3))
    model.fit_stage(dataset.train, "finetune", TrainConfig(epochs=40, batch_size=16, learning_rate=1e-3))
    for by in ("scores", "likelihood", "generation", "constrained"):
        measured = measure_choices(model, dataset, candidates=5, draws=2, by=by)
        assert measured.metrics["hit_ratio@1"] > 0.9, by


def test_likelihoods_are_those_of_each_answer_read_whole() -> None:
    model, dataset = trained(candidates=5), small_dataset()
    writer, table = model.writer(dataset.items), model.net.projected().detach()
    prompts, _ = writer.fill(Ragged.from_lists([dataset.train.interactions.history(2)]), 500)
    prompt = torch.from_numpy(prompts.tokens[0])
    answers = [torch.from_numpy(tokens) for tokens in writer.answers_of(np.arange(7))]
    answers.append(answers[0][-1:])  # of an item without a title: the end token alone
    with torch.no_grad():
        found = likelihoods(model.net.backbone, prompt, answers, table)
        for number, answer in enumerate(answers):
            tokens = torch.cat([prompt, answer])[None]
            states = model.net.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0]
            logits = torch.log_softmax(states @ model.net.backbone.output_embeddings.T, dim=-1)
            indices = torch.arange(len(prompt) - 1, tokens.shape[1] - 1)
            assert found[number].item() == pytest.approx(logits[indices, answer].mean().item(), abs=1e-4)


def test_generation_takes_the_most_likely_token_each_time() -> None:
    model, dataset = trained(), small_dataset()
    table = model.net.projected().detach()
    prompts, _ = model.writer(dataset.items).fill(
        Ragged.from_lists([dataset.train.interactions.history(4)]), 500
    )
    prompt = torch.from_numpy(prompts.tokens[0])
    with torch.no_grad():
        found = generate(model.net.backbone, prompt, model.tokenizer.document.end, 6, table)
        expected: list[int] = []
        while len(expected) < 6:
            tokens = torch.cat([prompt, torch.tensor(expected, dtype=torch.int64)])[None]
            states = model.net.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0, -1]
            token = int((states @ model.net.backbone.output_embeddings.T).argmax())
            if (token,) == model.tokenizer.document.end:
                break
            expected.append(token)
    assert found == expected


@torch.no_grad()
def test_constrained_generation_continues_titles_of_candidates_alone() -> None:
    model, dataset = trained(), small_dataset()
    backbone, table = model.net.backbone, model.net.projected()
    writer, end = model.writer(dataset.items), list(model.tokenizer.document.end)
    prompts, _ = writer.fill(Ragged.from_lists([dataset.train.interactions.history(4)]), 500)
    prompt = torch.from_numpy(prompts.tokens[0])
    titles = [tokens.tolist() for tokens in writer.answers_of(np.array([3, 9, 20]))]
    titles.append([*titles[0][:1], *end])  # a title that begins another
    left, n = titles, 0
    while len(left) > 1:  # by a forward pass a token
        tokens = torch.cat([prompt, torch.tensor(left[0][:n], dtype=torch.int64)])[None]
        states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0, -1]
        logits = states @ backbone.output_embeddings.T
        best = max({title[n] for title in left}, key=lambda token: logits[token].item())
        left, n = [title for title in left if title[n] == best], n + 1
    found = generate(backbone, prompt, end, 50, table, titles)
    assert [*found, *end] == left[0]


@torch.no_grad()
@pytest.mark.parametrize("candidates", [0, 4])
def test_a_likelihood_is_compared_with_that_without_the_history(candidates: int) -> None:
    model, dataset = trained(candidates=candidates), small_dataset()
    writer, table = model.writer(dataset.items), model.net.projected()
    sets, users = np.array([[3, 9, 20, 31], [3, 8, 41, 50], [9, 3, 50, 7]]), np.array([2, 5, 6])
    expected = []
    for user, of_user in zip(users.tolist(), sets, strict=True):
        named = Ragged.from_lists([of_user]) if candidates else None
        shown = [torch.from_numpy(tokens) for tokens in writer.answers_of(of_user)]
        after = []
        read = dataset.train.interactions.history(user)[-model.config.length :]
        for history in (read, of_user[:0]):
            prompts, _ = writer.fill(Ragged.from_lists([history]), 500, named)
            after.append(likelihoods(model.net.backbone, torch.from_numpy(prompts.tokens[0]), shown, table))
        expected.append(int((after[0] - after[1]).argmax()))
    assert model.choose(users, sets, dataset.train, "likelihood").tolist() == expected


def test_an_answer_that_names_no_candidate_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = trained(), small_dataset()
    right = model.writer(dataset.items).answers_of(np.array([9]))[0][:-1].tolist()
    sets = np.array([[3, 9], [4, 5]])
    monkeypatch.setattr(answers, "generate", lambda *arguments: right)
    assert model.choose(np.array([0, 1]), sets, dataset.train, "generation").tolist() == [1, -1]
    with pytest.raises(ValueError, match="likelihood"):
        model.choose(np.array([0]), sets[:1], dataset.train, "dice")
    with pytest.raises(ValueError, match="sasrec chooses by scores"):
        sasrec().choose(np.array([0]), sets[:1], dataset.train, "likelihood")


def test_an_item_without_a_title_is_no_answer_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    world = taste_world(1, n_users=20, n_items=30, n_events=8)
    untitled = ["book-0000", "book-0001"]
    title = pl.when(pl.col("item_id").is_in(untitled)).then(pl.lit("")).otherwise("title").alias("title")
    dataset = Dataset.from_frame(world.events, world.items.with_columns(title), split="leave-last-out")
    model = untrained().build(dataset.train)
    numbers = dataset.item_ids.index(untitled, "item")
    shown = np.array([[*numbers, 5, 6]])
    assert model.choose(np.array([0]), shown, dataset.train, "likelihood")[0] >= 2
    assert model.choose(np.array([0]), shown[:, :2], dataset.train, "likelihood").tolist() == [-1]
    monkeypatch.setattr(answers, "generate", lambda *rest: [])
    assert model.choose(np.array([0]), shown, dataset.train, "generation").tolist() == [-1]


def test_answers_in_words_are_refused_where_there_are_no_titles() -> None:
    dataset = Dataset.from_frame(
        taste_world(1, n_users=20, n_items=30, n_events=8).events, split="leave-last-out"
    )
    model = untrained(prompt="ids").build(dataset.train)
    with pytest.raises(ValueError, match="the items have none: choose by scores"):
        model.choose(np.array([0]), np.array([[1, 2]]), dataset.train, "likelihood")


@pytest.mark.parametrize("candidates", [False, True])
def test_the_common_beginning_goes_up_to_the_first_item_also_after_a_bos(
    candidates: bool, shared: Path
) -> None:
    dataset, backbone = small_dataset(), str(shared / "backbones" / "stories260K")
    model = untrained(backbone=backbone).build(dataset.train)
    writer, named = model.writer(dataset.items), Ragged.from_lists([[3], [4]]) if candidates else None
    prompts, _ = writer.fill(Ragged.from_lists([[1], [2]]), 500, named)
    n = writer.n_beginning(candidates)
    assert n > len(writer.tokenizer.document.begin) == 1
    np.testing.assert_array_equal(*prompts.tokens[:, :n])
    first = [writer.item_tokens.take([item]).values for item in (1, 2)]
    for tokens, item in zip(prompts.tokens, first, strict=True):
        np.testing.assert_array_equal(tokens[n : n + len(item)], item)


def counted_tokens(monkeypatch: pytest.MonkeyPatch, model: RSLLM) -> list[int]:
    """The tokens of each later pass of the backbone, padding included."""
    read = list[int]()
    forward = type(model.net.backbone).forward

    def counted(self: Any, tokens: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        read.append(tokens.numel())
        return forward(self, tokens, *others, **more)

    monkeypatch.setattr(type(model.net.backbone), "forward", counted)
    return read


@pytest.mark.parametrize("candidates", [0, 5])
def test_the_common_beginning_of_prompts_is_read_once(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are the same without it, and prompts of any history begin with it."""
    model, dataset = trained(candidates=candidates), small_dataset()
    writer, users = model.writer(dataset.items), np.arange(6)
    shown = np.tile(np.arange(5), (6, 1))
    n = writer.n_beginning(candidates > 0)
    assert n > 3
    named = Ragged.from_lists([shown[0]]) if candidates else None
    histories = [dataset.train.interactions.history(2), np.empty(0, dtype=np.int64)]
    begins = [writer.fill(Ragged.from_lists([each]), 500, named)[0].tokens[0, :n] for each in histories]
    np.testing.assert_array_equal(*begins)
    read = counted_tokens(monkeypatch, model)
    chosen = {by: model.choose(users, shown, dataset.train, by) for by in ("likelihood", "constrained")}
    n_read = sum(read)
    read.clear()
    monkeypatch.setattr(Beginning, "begins", lambda self, prompt: False)
    for by, choice in chosen.items():
        np.testing.assert_array_equal(model.choose(users, shown, dataset.train, by), choice)
    assert n_read <= sum(read) - n * 2 * (len(users) - 1)


def test_lists_read_the_common_beginning_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = trained(), small_dataset()
    n, users = model.writer(dataset.items).n_beginning(False), np.arange(40)
    read = counted_tokens(monkeypatch, model)
    scores = model.score(users, dataset.seen)
    n_read = sum(read)
    read.clear()
    monkeypatch.setattr(PromptWriter, "n_beginning", lambda self, candidates: 0)
    np.testing.assert_allclose(model.score(users, dataset.seen), scores, rtol=1e-4, atol=1e-4)
    assert n_read == sum(read) - n * (len(users) - 1)
