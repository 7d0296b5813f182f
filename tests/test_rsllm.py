"""RSLLM: unified prompts, two stages, two contrastive losses, two ways of recommending."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer

from cllm4rec import evaluate, finetune, pretrain, recommend
from cllm4rec.data.candidates import title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models import load, system_class
from cllm4rec.models.answers import generate, likelihoods
from cllm4rec.models.configs import FORMS, RSLLMConfig, SASRecConfig
from cllm4rec.models.popularity import Popularity
from cllm4rec.models.rsllm import RSLLM
from cllm4rec.models.rsllm_net import mean_states
from cllm4rec.models.sasrec import SASRec
from cllm4rec.options import with_whole_paths
from cllm4rec.text.behaviour import BehaviourCorpus, BehaviourOptions, ContrastCorpus
from cllm4rec.text.corpora import as_tensors
from cllm4rec.text.ragged import Ragged
from cllm4rec.text.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.text.unified import ItemWriter
from cllm4rec.training import losses
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import item_contrast, user_contrast

TITLES = ["Red Lamp", "Blue Chair Of Wood", "", "Green Door", "red lamp ", "Old Oak Table With Drawers"]
QUICK = TrainConfig(epochs=1, batch_size=16, warmup_steps=5)


@cache
def tokenizer() -> ExtendedTokenizer:
    words = train_bpe([*TITLES, "A user chose these items, the oldest first: and of these candidates: chose next:"])
    return ExtendedTokenizer(words, len(words), 0, len(TITLES))


def writer(form: str = "unified", title_words: int = 8) -> ItemWriter:
    return ItemWriter(tokenizer(), TITLES, form, title_words)


def rows(*lists: list[int]) -> Ragged:
    return Ragged.of([np.array(one, dtype=np.int64) for one in lists])


def words_of(text: str) -> list[int]:
    """Tokens of a text that stands behind something else."""
    return tokenizer().encode_texts([text])[0].tolist()


def soft(item: int) -> int:
    return tokenizer().n_words + item


# ------------------------------------------------------------------------------------------------------------------ prompts


def test_an_item_is_its_titles_words_followed_by_one_soft_token() -> None:
    prompts, _ = writer().fill(rows([1, 0], [3]), 200)
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    after = tokenizer().encode_words(" and chose next:", after_id=True)
    first = [*before, *words_of("Blue Chair Of Wood"), soft(1), *words_of("Red Lamp"), soft(0), *after]
    second = [*before, *words_of("Green Door"), soft(3), *after]
    assert prompts.tokens[0][prompts.mask[0]].tolist() == first
    assert prompts.tokens[1][prompts.mask[1]].tolist() == second
    assert prompts.tokens.ravel()[prompts.closes].tolist() == [soft(1), soft(0), soft(3)]
    assert prompts.tokens.ravel()[prompts.query].tolist() == [soft(0), soft(3)]
    spoken = [prompts.tokens.ravel()[prompts.words[prompts.word_items == number]].tolist() for number in range(3)]
    assert spoken == [words_of("Blue Chair Of Wood"), words_of("Red Lamp"), words_of("Green Door")]


def test_text_only_prompts_leave_out_the_soft_tokens_and_id_only_prompts_the_titles() -> None:
    text, _ = writer("text").fill(rows([1, 2]), 200, asked=False)
    comma = tokenizer().encode_words(",", after_id=True)
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    assert text.tokens[0].tolist() == [*before, *words_of("Blue Chair Of Wood"), *comma, *comma], "an item without a title"
    ids, _ = writer("ids").fill(rows([1, 2]), 200, asked=False)
    assert ids.tokens[0].tolist() == [*before, soft(1), soft(2)]
    assert len(ids.words) == 0


def test_candidates_and_the_answer_follow_the_history() -> None:
    prompts, _ = writer().fill(rows([0]), 200, rows([3, 1]), writer().answers.take(np.array([3])))
    between = tokenizer().encode_words(" and of these candidates:", after_id=True)
    named = [*words_of("Green Door"), soft(3), *words_of("Blue Chair Of Wood"), soft(1)]
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    question = tokenizer().encode_words(" chose next:", after_id=True)
    answer = [*words_of("Green Door"), tokenizer().end]
    whole = [*before, *words_of("Red Lamp"), soft(0), *between, *named, *question, *answer]
    assert prompts.tokens[0].tolist() == whole
    assert prompts.tokens[0][prompts.query[0]] == soft(0), "read before any candidate is named"
    assert prompts.tokens.ravel()[prompts.answers].tolist() == answer


def test_long_titles_are_cut_at_a_number_of_words() -> None:
    assert writer(title_words=2).titles.take(np.array([5])).values.tolist() == words_of("Old Oak")
    assert writer(title_words=2).answers.take(np.array([5])).values.tolist() == [*words_of("Old Oak"), tokenizer().end]


@pytest.mark.parametrize("form", FORMS)
def test_long_histories_keep_the_newest_items_and_never_lose_instruction_or_question(form: str) -> None:
    own, history = writer(form), [0, 1, 3, 5, 4, 1, 0]
    whole, _ = own.fill(rows(history), 10_000)
    empty, _ = own.fill(rows([]), 10_000)
    for context in range(empty.tokens.shape[1], whole.tokens.shape[1] + 1):
        prompts, kept = own.fill(rows(history, [3]), context)
        n = int(prompts.mask[0].sum())
        assert n <= context
        items = kept.take(np.array([0])).values.tolist()
        assert items == history[len(history) - len(items) :]
        if len(items) < len(history):  # the next older one would not have fitted
            assert n + own.written.lengths[history[-len(items) - 1]] > context
        first = prompts.tokens[0][prompts.mask[0]].tolist()
        before = tokenizer().encode_words("A user chose these items, the oldest first:")
        after = tokenizer().encode_words(" and chose next:", after_id=True)
        assert first[: len(before)] == before
        assert first[-len(after) :] == after


def test_a_context_without_room_for_question_and_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="a context of 30 tokens has no room"):
        writer().fill(rows([0]), 30, rows([1, 3, 5]))


def test_a_history_without_items_is_read_at_the_end_of_the_instruction() -> None:
    prompts, _ = writer().fill(rows([], [0]), 100, asked=False)
    n = len(tokenizer().encode_words("A user chose these items, the oldest first:"))
    assert prompts.query.tolist()[0] == n - 1
    assert len(prompts.closes) == 1


def test_items_that_share_a_title_are_grouped() -> None:
    groups = title_groups(pl.DataFrame({"item_id": range(6), "title": TITLES}))
    assert groups[0] == groups[4], "letter case and outer spaces make no difference"
    assert len(set(groups.tolist())) == 5
    untitled = title_groups(pl.DataFrame({"item_id": ["a", "b"], "title": ["", None]}))
    assert untitled[0] != untitled[1], "to have no title is not to share one"
    assert title_groups(pl.DataFrame({"item_id": [5, 6]})).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------------- corpora


def events() -> Interactions:
    """User 0 took 1, 0, 3, 5; user 1 took 3 alone; user 2 took 4, 1."""
    return Interactions(np.array([0, 0, 0, 0, 1, 2, 2]), np.array([1, 0, 3, 5, 3, 4, 1]), 3, 6)


def groups() -> np.ndarray:
    return title_groups(pl.DataFrame({"title": TITLES}))


def contrast(hard: int = 0, **options: Any) -> ContrastCorpus:
    given = BehaviourOptions(**{"context": 200, "length": 10, "negatives": 100, **options})
    return ContrastCorpus(events(), writer(), groups(), given, np.tile(np.arange(hard), (3, 1)))


def test_stage_1_predicts_the_words_of_a_title_and_the_end_token_from_the_items_before() -> None:
    corpus = BehaviourCorpus(events(), writer("text"), groups(), BehaviourOptions(200, 10))
    assert corpus.users.tolist() == [0, 2], "a single item answers nothing"
    batch = corpus.batch(np.array([1]), 0)
    answers = [*words_of(TITLES[1]), tokenizer().end]
    assert batch["targets"].tolist() == answers
    written = {tuple(corpus.batch(np.array([0]), epoch)["tokens"][0].tolist()) for epoch in range(30)}
    taken = [1, 0, 3, 5]
    expected = set()
    for last in (1, 2, 3):  # any item but the first is the answer in some epoch
        prompts, _ = writer("text").fill(rows(taken[:last]), 200, None, writer().answers.take(np.array([taken[last]])))
        expected.add(tuple(prompts.tokens[0].tolist()))
    assert written == expected
    assert not any(token >= tokenizer().n_words for tokens in written for token in tokens)
    following = batch["tokens"].ravel()[batch["read"] + 1]
    assert following.tolist() == answers, "each is predicted from the place before it"


def test_stage_2_predicts_every_item_but_the_first_from_those_before_it() -> None:
    batch = contrast().batch(np.array([0, 1]), 0)
    items = batch["items"]
    assert items[batch["targets"]].tolist() == [0, 3, 5, 1]
    assert items[batch["titled"]].tolist() == [1, 0, 3, 4]
    assert batch["targets_of"].tolist() == [0, 0, 0, 1]
    read = batch["tokens"].ravel()[batch["states"]] - tokenizer().n_words
    assert items[read].tolist() == [1, 0, 3, 4], "states are read at the soft tokens"
    assert batch["groups"].tolist() == groups()[items].tolist()


def test_a_longer_history_is_read_by_stretches_that_change_from_epoch_to_epoch() -> None:
    corpus = contrast(length=1)
    seen = set()
    for epoch in range(30):
        batch = corpus.batch(np.array([0]), epoch)
        items = batch["items"]
        seen.add((int(items[batch["titled"]][0]), int(items[batch["targets"]][0])))
    assert seen == {(1, 0), (0, 3), (3, 5)}


def test_the_sample_is_the_same_for_all_micro_batches_and_another_in_each_step() -> None:
    corpus = contrast(negatives=3)
    parts = [corpus.batch(np.array([example]), 2, step=7) for example in (0, 1)]
    drawn = [part["items"][part["sample"]].tolist() for part in parts]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    samples = {tuple(sorted(corpus.sample(epoch, step).tolist())) for epoch in range(3) for step in range(10)}
    assert len(samples) > 5
    assert contrast().sample(0, 0).tolist() == list(range(6)), "all items, where there are no more"


def test_candidates_of_training_prompts_are_items_not_taken_and_share_no_title() -> None:
    batch = contrast(candidates=3).batch(np.array([1]), 0)
    assert "chose next" in tokenizer().decode([one for one in batch["tokens"][0].tolist() if one < tokenizer().n_words])
    named = (batch["tokens"][0] >= tokenizer().n_words).nonzero()[:, 0]
    places = batch["tokens"][0][named] - tokenizer().n_words
    shown = batch["items"][places].tolist()
    assert shown[0] == 4, "the history"
    assert 1 in shown[1:], "the answer"
    assert not {0, 4} & set(shown[1:]), "what was taken, and what shares its title"
    assert len(set(shown[1:])) == 3


# -------------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("fewest_rows", [1, 50], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [50, 3, 1])
def test_the_user_contrast_and_its_gradients_equal_a_dense_float64_reference(
    rows_at_once: int, fewest_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", rows_at_once * 12)
    monkeypatch.setattr(losses, "FEWEST_ROWS", fewest_rows)
    generator = torch.Generator().manual_seed(0)
    states, projected = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (8, 20))
    targets, hard = (torch.randint(20, shape, generator=generator) for shape in ((8,), (8, 3)))
    sample, groups = torch.randperm(20, generator=generator)[:12], torch.randint(9, (20,), generator=generator)
    double = [one.clone().requires_grad_() for one in (states, projected)]
    expected = torch.zeros((), dtype=torch.float64)
    for r in range(8):  # as it is defined, one row after the other
        others = [j for j in [*sample.tolist(), *hard[r].tolist()] if groups[j] != groups[targets[r]]]
        logits = torch.stack([double[0][r] @ double[1][j] for j in [int(targets[r]), *others]])
        expected = expected - logits.log_softmax(0)[0]
    (2.5 * expected).backward()
    single = [one.detach().float().requires_grad_() for one in (states, projected)]
    loss = user_contrast(*single, targets, sample, groups, hard)
    (2.5 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, exact in zip(single, double, strict=True):
        torch.testing.assert_close(one.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_the_user_contrast_of_two_histories_by_hand() -> None:
    """States (1, 0) and (0, 2), items P = (1, 0), (0, 1): logits [[1, 0], [0, 2]]; 0 followed the one, 1 the other."""
    states, projected = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2)
    loss = user_contrast(states, projected, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)), rel=1e-6)
    hard = user_contrast(
        states, projected, torch.tensor([0, 0]), torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([[1], [1]])
    )
    assert hard.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2)), rel=1e-6)


def test_the_item_contrast_of_two_titles_by_hand() -> None:
    """Lengths do not matter: cosines [[1, 0], [0.6, 0.8]] over a temperature of 0.5."""
    titles, projected = torch.tensor([[3.0, 0.0], [0.6, 0.8]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    both = torch.tensor([0, 1])
    loss = item_contrast(titles, projected, both, both, both, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)) + math.log(1 + math.exp((0.6 - 0.8) / 0.5)), rel=1e-5)


def test_items_that_share_a_title_are_never_each_others_negatives() -> None:
    states, projected = torch.randn(3, 4), torch.randn(4, 4)
    targets, sample = torch.tensor([0, 1, 2]), torch.arange(4)
    shared, own = torch.tensor([7, 7, 2, 3]), torch.arange(4)
    for loss in (user_contrast, lambda *a: item_contrast(*a, 0.3)):
        without = sum(loss(states[[row]], projected, targets[[row]], torch.tensor(left), own)
                      for row, left in ((0, [2, 3]), (1, [2, 3]), (2, [0, 1, 3])))  # fmt: skip
        torch.testing.assert_close(loss(states, projected, targets, sample, shared), without)
        assert not torch.allclose(loss(states, projected, targets, sample, own), without)


def test_mean_states_of_titles_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 7.0]])
    means, items = mean_states(states, torch.tensor([0, 1, 3]), torch.tensor([0, 0, 2]), torch.tensor([10, 11, 12]))
    assert means.tolist() == [[2.0, 1.0], [7.0, 7.0]]
    assert items.tolist() == [10, 12], "an item without words is left out"


# --------------------------------------------------------------------------------------------------------------- the system


@cache
def small() -> Dataset:
    world = taste_world(1, n_users=80, n_items=60, n_events=12)
    return build_dataset(world.events, world.items, split="leave-last-out")


@cache
def sasrec() -> SASRec:
    return SASRec(SASRecConfig(dropout=0.1)).fit(small().train, small().validation, TrainConfig(epochs=3))


def untrained(**settings: Any) -> RSLLM:
    model = RSLLM(RSLLMConfig(**{"dropout": 0.0, "title_words": 4, **settings}))
    model.given_first = sasrec()
    return model


@cache
def trained(**settings: Any) -> RSLLM:
    model = untrained(**settings)
    for stage in model.stages:
        model.fit(small().train, small().validation, QUICK, stage)
    return model


def cycle(titled: bool = True, shuffled: bool = False) -> Dataset:
    """Everybody goes round one circle of items from a place of their own: what comes next is certain."""
    order = np.random.default_rng(0)
    table = [
        {"user_id": f"u{user}", "item_id": f"i{(user + step) % 20}", "timestamp": step if not shuffled else int(place)}
        for user in range(60)
        for step, place in enumerate(order.permutation(9))
    ]
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(20)], "title": [f"Place {n}" for n in range(20)]})
    return build_dataset(pl.DataFrame(table), items if titled else None, split="leave-last-out")


def recall_at_1(model: Any, dataset: Dataset) -> float:
    seen = dataset.only("train", "validation")
    best = model.recommend(np.arange(dataset.n_users), seen, k=1).items[:, 0]
    return float((best == dataset.test.interactions.items).mean())


def test_the_next_item_of_a_cycle_is_certain() -> None:
    dataset = cycle()
    model = RSLLM(RSLLMConfig(dropout=0.1))
    model.fit(dataset.train, None, TrainConfig(epochs=2, batch_size=16))
    model.fit(dataset.train, None, TrainConfig(epochs=30, batch_size=16, learning_rate=1e-3), "finetune")
    assert recall_at_1(model, dataset) == 1.0
    assert recall_at_1(Popularity().fit(dataset.train), dataset) < 0.3


def test_the_language_model_answers_what_is_certain() -> None:
    dataset = cycle()
    model = RSLLM(RSLLMConfig(dropout=0.1, length=3))
    model.fit(dataset.train, None, TrainConfig(epochs=60, batch_size=16, learning_rate=1e-3))
    model.fit(dataset.train, None, TrainConfig(epochs=30, batch_size=16, learning_rate=1e-3), "finetune")
    for by in ("scores", "likelihood", "generation"):
        found = measure(model, dataset.only("train", "validation"), dataset.test, candidates=5, draws=2, by=by).metrics
        assert found["hit_ratio@1"] > 0.9, by


def test_the_embeddings_of_gru4rec_are_read_likewise() -> None:
    model = RSLLM(RSLLMConfig(sequential="gru4rec", title_words=4))
    assert model.first == "gru4rec"
    model.given_first = system_class("gru4rec")().fit(small().train, None, QUICK)
    for stage in model.stages:
        model.fit(small().train, small().validation, QUICK, stage)
    assert model.net.items.shape == model.given_first.net.items.shape
    assert np.isfinite(model.score(np.arange(5), small().train)).all()


@pytest.mark.parametrize("n", [0, 5])
def test_the_state_of_a_history_does_not_move_when_candidates_are_permuted(n: int) -> None:
    model, dataset = trained(candidates=5), small()
    own, table = model.writer(dataset.items), model.net.projected()
    history, generator = dataset.train.interactions.history(3), np.random.default_rng(0)
    named = generator.permutation(dataset.n_items)[:n] if n else None

    def state(candidates: np.ndarray | None) -> torch.Tensor:
        shown = None if candidates is None else Ragged.of([candidates])
        prompts, _ = own.fill(Ragged.of([history]), 1000, shown)
        with torch.no_grad():
            states = model.net.backbone(torch.from_numpy(prompts.tokens), torch.from_numpy(prompts.mask), table)
        return states.flatten(0, 1)[prompts.query[0]]

    one, other = state(named), state(None if named is None else named[::-1])
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one, state(None), rtol=1e-5, atol=1e-5)


def test_the_projector_starts_as_an_isometry() -> None:
    model = untrained().fit(small().train, None, TrainConfig(epochs=0))
    table, embeddings = model.net.projected().detach(), model.net.items.detach()
    torch.testing.assert_close(table @ table.T, embeddings @ embeddings.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embeddings.numpy(), sasrec().net.items.detach().numpy())
    words = model.net.backbone.words.detach().std() * model.net.backbone.word_scale
    assert float(table.std()) * model.net.backbone.id_scale == pytest.approx(float(words.detach()), rel=1e-4)


def test_stage_1_trains_the_language_model_and_nothing_else() -> None:
    model = untrained().fit(small().train, None, TrainConfig(epochs=0))
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    model = untrained().fit(small().train, None, QUICK)
    moved = {name for name, p in model.net.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("backbone") for name in moved)
    assert not [name for name in moved if not name.startswith("backbone")]


@pytest.mark.parametrize(("setting", "gone"), [("alpha", "C_item"), ("beta", "C_user"), (None, None)])
def test_each_contrastive_loss_can_be_switched_off(setting: str | None, gone: str | None) -> None:
    model = untrained(**({} if setting is None else {setting: 0.0})).fit(small().train, None, TrainConfig(epochs=0))
    (objective,) = model._objectives(small().train, "finetune", QUICK)
    terms = model.net(objective.name, objective.corpus.batch(np.arange(8), 0))
    assert set(terms) == {"answer", "C_item", "C_user"} - {gone}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_the_sum_of_its_parts(form: str) -> None:
    """So that micro-batches and processes give what one batch gives; padding changes nothing."""
    model = untrained(prompt=form, negatives=20, hard=3).fit(small().train, None, TrainConfig(epochs=0))
    (objective,) = model._objectives(small().train, "finetune", QUICK)
    examples = np.arange(24)
    whole = model.net(objective.name, objective.corpus.batch(examples, 1, 5))
    parts = [model.net(objective.name, objective.corpus.batch(part, 1, 5)) for part in np.array_split(examples, 5)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value, rtol=1e-4, atol=1e-3)


def test_a_step_that_projects_its_own_items_is_that_which_projects_all() -> None:
    model = untrained(negatives=20, hard=3).fit(small().train, None, TrainConfig(epochs=0))
    (objective,) = model._objectives(small().train, "finetune", QUICK)
    batch = objective.corpus.batch(np.arange(24), 1, 5)
    items, n_words, n_items = batch["items"], model.tokenizer.n_words, small().n_items
    assert len(items) < n_items
    soft = batch["mask"] & (batch["tokens"] >= n_words)
    everything = batch | {
        "tokens": torch.where(soft, n_words + items[(batch["tokens"] - n_words).clamp(min=0)], batch["tokens"]),
        "items": torch.arange(n_items),
        "groups": torch.tensor(title_groups(small().items)),
        **{name: items[batch[name]] for name in ("targets", "titled", "sample", "hard")},
    }
    some, of_all = (model.net(objective.name, one) for one in (batch, everything))
    for name, value in of_all.items():
        torch.testing.assert_close(some[name], value, rtol=1e-5, atol=1e-5)


def test_hard_negatives_are_the_first_of_the_sequential_recommender_and_were_not_taken() -> None:
    model = untrained(negatives=20, hard=4).fit(small().train, None, TrainConfig(epochs=0))
    hard, train = model._hard(small().train), small().train
    for user in range(train.n_users):
        assert not set(hard[user].tolist()) & set(train.interactions.history(user).tolist())
    expected = sasrec().recommend(np.arange(train.n_users), train, 4).items
    np.testing.assert_array_equal(hard, expected)
    assert untrained(negatives=60).fit(train, None, TrainConfig(epochs=0))._hard(train).shape == (80, 0), (
        "all are contrasted with"
    )


def test_scores_are_the_state_behind_the_history_by_the_projected_items() -> None:
    model, dataset = trained(), small()
    history = dataset.train.interactions.history(5)
    prompts, _ = model.writer(dataset.items).fill(Ragged.of([history[-20:]]), 1000)  # with the question: it changes nothing
    batch = as_tensors(tokens=prompts.tokens, mask=prompts.mask)
    with torch.no_grad():
        table = model.net.projected()
        states = model.net.norm(model.net.backbone(batch["tokens"], batch["mask"], table).flatten(0, 1))
        expected = (states[prompts.query[0]] @ table.T).numpy()
    np.testing.assert_allclose(model.score(np.array([5]), dataset.train)[0], expected, rtol=1e-4, atol=1e-4)


def test_likelihoods_are_what_reading_each_answer_whole_gives() -> None:
    model, dataset = trained(candidates=5), small()
    own, table = model.writer(dataset.items), model.net.projected().detach()
    prompts, _ = own.fill(Ragged.of([dataset.train.interactions.history(2)]), 500)
    prompt, answers = torch.from_numpy(prompts.tokens[0]), [torch.from_numpy(one) for one in own.answers_of(np.arange(7))]
    answers.append(answers[0][-1:])  # of an item without a title: the end token alone
    with torch.no_grad():
        found = likelihoods(model.net.backbone, prompt, answers, table)
        for number, answer in enumerate(answers):
            tokens = torch.cat([prompt, answer])[None]
            states = model.net.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0]
            logits = torch.log_softmax(states @ model.net.backbone.word_head.T, dim=-1)
            places = torch.arange(len(prompt) - 1, tokens.shape[1] - 1)
            assert found[number].item() == pytest.approx(logits[places, answer].mean().item(), abs=1e-4)


def test_generation_takes_the_likeliest_word_again_and_again() -> None:
    model, dataset = trained(), small()
    table = model.net.projected().detach()
    prompts, _ = model.writer(dataset.items).fill(Ragged.of([dataset.train.interactions.history(4)]), 500)
    prompt = torch.from_numpy(prompts.tokens[0])
    with torch.no_grad():
        words = generate(model.net.backbone, prompt, model.tokenizer.end, 6, table)
        expected: list[int] = []
        while len(expected) < 6:
            tokens = torch.cat([prompt, torch.tensor(expected, dtype=torch.int64)])[None]
            states = model.net.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0, -1]
            word = int((states @ model.net.backbone.word_head.T).argmax())
            if word == model.tokenizer.end:
                break
            expected.append(word)
    assert words == expected


def test_an_answer_that_names_no_candidate_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    from cllm4rec.models import rsllm

    model, dataset = trained(), small()
    right = model.writer(dataset.items).answers_of(np.array([9]))[0][:-1].tolist()
    sets = np.array([[3, 9], [4, 5]])
    monkeypatch.setattr(rsllm, "generate", lambda *given: right)
    assert model.choose(np.array([0, 1]), sets, dataset.train, "generation").tolist() == [1, -1]
    with pytest.raises(ValueError, match="likelihood"):
        model.choose(np.array([0]), sets[:1], dataset.train, "dice")
    with pytest.raises(ValueError, match="sasrec chooses by scores"):
        sasrec().choose(np.array([0]), sets[:1], dataset.train, "likelihood")


def test_an_item_without_a_title_is_no_answer_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    world = taste_world(1, n_users=20, n_items=30, n_events=8)
    untitled = ["book-0000", "book-0001"]
    title = pl.when(pl.col("item_id").is_in(untitled)).then(pl.lit("")).otherwise(pl.col("title")).alias("title")
    dataset = build_dataset(world.events, world.items.with_columns(title), split="leave-last-out")
    model = untrained().fit(dataset.train, None, TrainConfig(epochs=0))
    numbers = dataset.item_ids.index(untitled, "item")
    shown = np.array([[*numbers, 5, 6]])
    assert model.choose(np.array([0]), shown, dataset.train, "likelihood")[0] >= 2
    assert model.choose(np.array([0]), shown[:, :2], dataset.train, "likelihood").tolist() == [-1]
    monkeypatch.setattr("cllm4rec.models.rsllm.generate", lambda *rest: [])
    assert model.choose(np.array([0]), shown, dataset.train, "generation").tolist() == [-1]


def test_answers_in_words_are_refused_where_there_are_no_titles() -> None:
    dataset = build_dataset(taste_world(1, n_users=20, n_items=30, n_events=8).events, split="leave-last-out")
    model = untrained(prompt="ids").fit(dataset.train, None, TrainConfig(epochs=0))
    with pytest.raises(ValueError, match="the items have none: choose by scores"):
        model.choose(np.array([0]), np.array([[1, 2]]), dataset.train, "likelihood")


def test_a_title_without_spaces_is_cut_too() -> None:
    writer = ItemWriter(tokenizer(), ["x" * 4000, "a b"], "unified", 2)
    assert writer.titles.lengths.tolist()[0] == 16
    assert writer.titles.lengths.tolist()[1] < 16


def test_users_with_one_training_event_are_nothing_to_learn_from() -> None:
    events = pl.DataFrame({"user_id": list("aaabbb"), "item_id": list("xyzyzx"), "timestamp": [1, 2, 3] * 2})
    dataset = build_dataset(
        events, pl.DataFrame({"item_id": list("xyz"), "title": ["one", "two", "three"]}), split="leave-last-out"
    )
    for model in (SASRec(), untrained()):
        with pytest.raises(ValueError, match="nothing to learn from"):
            model.fit(dataset.train, None, TrainConfig(epochs=1))


def test_titles_are_needed_but_for_id_only_prompts() -> None:
    dataset = cycle(titled=False)
    with pytest.raises(ValueError, match="--items FILE"):
        RSLLM().fit(dataset.train, None, TrainConfig(epochs=0))
    model = RSLLM(RSLLMConfig(prompt="ids")).fit(dataset.train, None, TrainConfig(epochs=0))
    assert model.score(np.array([0]), dataset.train).shape == (1, 20)


def test_titles_of_items_without_training_events_reach_neither_vocabulary_nor_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    from cllm4rec.models import backbone

    cold = int(small().test.interactions.items[0])
    events = small().interactions
    part = np.where((events.items == cold) & (small().part == 0), 2, small().part).astype(np.uint8)
    titles = [f"Qyzzq {number}" if number == cold else title for number, title in enumerate(small().items["title"])]
    dataset = replace(small(), part=part, items=small().items.with_columns(title=pl.Series(titles)))
    read: list[str] = []
    train_bpe_here = backbone.train_bpe
    monkeypatch.setattr(backbone, "train_bpe", lambda texts: train_bpe_here([read.append(text) or text for text in texts]))
    model = untrained(candidates=20).fit(dataset.train, None, TrainConfig(epochs=0))
    assert read
    assert not any("Qyzzq" in text for text in read)
    for stage in model.stages:
        (objective,) = model._objectives(dataset.train, stage, QUICK)
        batch = objective.corpus.batch(np.arange(60), 0)
        words = batch["tokens"][batch["mask"] & (batch["tokens"] < model.tokenizer.n_words)]
        assert "Qyzzq" not in model.tokenizer.decode(words.tolist())


# ------------------------------------------------------------------------------------------------------------------ adapters


@pytest.fixture
def llama(shared: Path) -> Path:
    return shared / "backbones" / "stories260K"


def test_a_pretrained_backbone_is_tuned_by_adapters_and_stays_as_it_was(llama: Path, tmp_path: Path) -> None:
    model = untrained(backbone=str(llama))
    model.fit(small().train, None, QUICK)
    before = model.net.backbone.fingerprint()
    model.fit(small().train, None, QUICK, "finetune")
    trained_ones = [name for name in model._trained() if name.startswith("backbone")]
    assert trained_ones
    assert all(".lora_" in name for name in trained_ones)
    assert model.net.backbone.fingerprint() == before
    from cllm4rec.models.backbone import load_backbone

    assert load_backbone(RSLLMConfig(backbone=str(llama), tune="frozen"))[0].fingerprint() == before
    model.save(tmp_path)
    again = RSLLM.load(tmp_path)
    np.testing.assert_array_equal(again.score(np.arange(9), small().train), model.score(np.arange(9), small().train))


def test_adapters_without_their_library_are_refused_in_one_line(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else real(name, *rest))
    with pytest.raises(ValueError, match=r"pip install 'cllm4rec\[lora\]'"):
        untrained(backbone=str(llama)).fit(small().train, None, TrainConfig(epochs=0))


def test_titles_in_the_real_gpt2_tokenizer(shared: Path) -> None:
    words = AutoTokenizer.from_pretrained(shared / "backbones" / "gpt2-tokenizer", trust_remote_code=False)
    extended = ExtendedTokenizer(words, len(words), 0, 2)
    prompts, _ = ItemWriter(extended, ["The Lamp", "A Door"], "unified", 8).fill(rows([0, 1]), 100)
    text = extended.decode(prompts.tokens[0].tolist())
    assert text == "A user chose these items, the oldest first: The Lamp item_0 A Door item_1 and chose next:"


# ------------------------------------------------------------------------------------------------------------------ commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and a run of both stages whose sequential recommender was trained by the command."""
    folder = tmp_path_factory.mktemp("rsllm")
    small().save(folder / "data")
    given = ["--dataset", str(folder / "data"), "--output", str(folder / "run"), "--title-words", "4"]
    pretrain.main(["--system", "rsllm", *given, "--epochs", "1", "--seed", "3"])
    finetune.main(["--run", str(folder / "run"), "--epochs", "1"])
    return folder


def test_pretraining_trains_the_sequential_recommender_into_a_run_of_its_own(place: Path) -> None:
    inner = json.loads((place / "run" / "sasrec" / "run.json").read_text())
    assert inner["system"] == "sasrec"
    assert inner["stages"]["pretrain"]["training"]["seed"] == 3
    own = load(place / "run" / "sasrec")
    model = load(place / "run")
    assert isinstance(own, SASRec)
    assert isinstance(model, RSLLM)
    np.testing.assert_array_equal(model.sequential.net.items.detach(), own.net.items.detach())


def test_a_run_is_evaluated_and_serves_lists(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("scores", "likelihood", "generation"):
        flags = ["--candidates", "10", "--draws", "2", "--by", by, "--json", str(tmp_path / f"{by}.json")]
        evaluate.main(["--run", str(place / "run"), *flags])
        found = json.loads((tmp_path / f"{by}.json").read_text())["metrics"]
        assert set(found) == {"hit_ratio@1", "valid_ratio", "standard_error"}
        if by != "generation":
            assert found["valid_ratio"] == 1.0
    capsys.readouterr()
    evaluate.main(["--run", str(place / "run")])
    printed = capsys.readouterr().out
    assert "rsllm after finetune, on test" in printed
    assert "input: training and validation events" in printed
    recommend.main(["--run", str(place / "run"), "--all", "--k", "3", "--output", str(tmp_path / "lists.csv")])
    assert len(pl.read_csv(tmp_path / "lists.csv")) == 3 * small().n_users


def test_a_run_of_a_sequential_recommender_is_taken_over(place: Path, tmp_path: Path) -> None:
    given = ["--dataset", str(place / "data"), "--output", str(tmp_path / "run"), "--epochs", "1"]
    pretrain.main(["--system", "rsllm", "--sequential", str(place / "run" / "sasrec"), *given])
    assert not (tmp_path / "run" / "sasrec").exists()
    taken = load(tmp_path / "run")
    assert isinstance(taken, RSLLM)
    assert taken.config.sequential == str((place / "run" / "sasrec").resolve())


def test_a_folder_that_is_called_like_a_word_of_a_setting_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sasrec", "tiny", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    words = RSLLMConfig(sequential="sasrec", backbone="tiny")
    assert with_whole_paths(words) == words
    assert with_whole_paths(RSLLMConfig(backbone="gpt2")) == RSLLMConfig(backbone="gpt2")
    folders = with_whole_paths(RSLLMConfig(sequential="other", backbone="other"))
    assert (folders.sequential, folders.backbone) == (str(tmp_path / "other"), str(tmp_path / "other"))


def test_a_run_that_is_no_sequential_recommender_or_of_another_split_is_refused(place: Path, tmp_path: Path) -> None:
    pretrain.main(["--system", "popularity", "--dataset", str(place / "data"), "--output", str(tmp_path / "popular")])
    given = ["--system", "rsllm", "--dataset", str(place / "data"), "--output", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="is a run of popularity: it may be sasrec or gru4rec"):
        pretrain.main([*given, "--sequential", str(tmp_path / "popular")])
    with pytest.raises(ValueError, match="no run.json"):
        pretrain.main([*given, "--sequential", str(tmp_path / "nowhere")])
    world = taste_world(1, n_users=80, n_items=60, n_events=12)
    build_dataset(world.events, world.items, split="random").save(tmp_path / "other")
    pretrain.main(
        ["--system", "sasrec", "--dataset", str(tmp_path / "other"), "--output", str(tmp_path / "sas"), "--epochs", "1"]
    )
    with pytest.raises(ValueError, match="another split"):
        pretrain.main([*given, "--sequential", str(tmp_path / "sas")])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--candidates", "60"], "titles are left beside the longest history"),
        (["--candidates", "1"], "at least 2"),
        (["--backbone", "tinny"], "backbone 'tinny' cannot be loaded"),
        (["--sequential", "nowhere"], "no run.json"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    flags: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    given = ["--system", "rsllm", "--dataset", str(place / "data"), "--output", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=message):
        pretrain.main([*given, *flags])
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_titles_is_refused_before_the_sequential_recommender_is_trained(tmp_path: Path) -> None:
    build_dataset(taste_world(1, n_users=20, n_items=30, n_events=8).events, split="leave-last-out").save(tmp_path / "data")
    with pytest.raises(ValueError, match="the items have none"):
        pretrain.main(["--system", "rsllm", "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_refused_finetuning_leaves_the_one_before_as_it_was(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = (folder.about, sorted(file.name for file in folder.path.iterdir()))
    with pytest.raises(ValueError, match="candidates are asked for"):
        finetune.main(["--run", str(folder.path), "--candidates", "60"])
    assert (folder.about, sorted(file.name for file in folder.path.iterdir())) == before
    assert folder.ended("finetune")


def test_the_sequential_recommender_of_an_earlier_try_is_not_taken_for_another(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cllm4rec import stages

    given = ["--system", "rsllm", "--dataset", str(place / "data"), "--output", str(tmp_path / "run"), "--max-minutes", "9"]
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 5)
        with pytest.raises(SystemExit):
            pretrain.main(given)
    inner = RunFolder(tmp_path / "run" / "sasrec")
    assert inner.about["under_way"]["pretrain"]["training"]["max_minutes"] == 9, "the limit is that of each training"
    with pytest.raises(ValueError, match="interrupted pretrain: go on with --resume"):
        pretrain.main(given)
    inner.state("pretrain").remove()
    with pytest.raises(ValueError, match="was trained with --seed 0, not 5"):
        pretrain.main([*given, "--seed", "5"])


def test_a_training_stopped_in_the_sequential_recommender_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cllm4rec import stages

    given = ["--dataset", str(place / "data"), "--output", str(tmp_path / "run"), "--title-words", "4"]
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 5)
        with caplog.at_level("INFO"), pytest.raises(SystemExit):
            pretrain.main(["--system", "rsllm", *given, "--epochs", "1", "--seed", "3"])
    assert f"python -m cllm4rec.pretrain --output {tmp_path / 'run'} --resume" in caplog.text
    pretrain.main(["--output", str(tmp_path / "run"), "--resume"])
    for name in ("model.safetensors", "sequential/model.safetensors"):
        assert (tmp_path / "run" / "pretrain" / name).read_bytes() == (place / "run" / "pretrain" / name).read_bytes()


def test_a_finetuning_that_was_stopped_ends_where_it_would_have_ended(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cllm4rec import stages

    shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "finetune")
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 1)
        with pytest.raises(SystemExit):
            finetune.main(["--run", str(tmp_path / "run"), "--epochs", "1"])
    finetune.main(["--run", str(tmp_path / "run"), "--resume"])
    both = [folder / "run" / "finetune" / "model.safetensors" for folder in (tmp_path, place)]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_shuffled_labels_in_time_leave_nothing_to_learn() -> None:
    """The circle walked in random order: what comes next is one of those left, about one in twelve."""
    dataset = cycle(shuffled=True)
    model = RSLLM(RSLLMConfig(dropout=0.1))
    for stage in model.stages:
        model.fit(dataset.train, dataset.validation, replace(QUICK, epochs=3), stage)
    assert recall_at_1(model, dataset) < 0.45


@pytest.mark.slow
def test_two_processes_give_what_one_gives_with_two_micro_batches(place: Path, tmp_path: Path) -> None:
    """Bit for bit: the sample of negatives, seen by both, does not depend on who computes what."""
    shaped = ["--title-words", "4", "--dropout", "0", "--negatives", "20", "--hard", "3"]
    given = ["--system", "rsllm", "--dataset", str(place / "data"), "--sequential", str(place / "run" / "sasrec"), *shaped]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    one = [sys.executable, "-m"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for name, launch, further in (("two", two, []), ("one", one, ["--accumulation", "2"])):
        run, dashes = str(tmp_path / name), ["--"] if launch is two else []
        for command, flags in (("pretrain", [*given, "--output", run]), ("finetune", ["--run", run])):
            typed = [*launch, f"cllm4rec.{command}", *dashes, *flags, "--epochs", "2", "--batch-size", "16", *further]
            done = subprocess.run(typed, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
            assert done.returncode == 0, done.stderr
    for stage in ("pretrain", "finetune"):
        files = [tmp_path / name / stage / "model.safetensors" for name in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
