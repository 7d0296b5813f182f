"""Losses against dense references, the loop's invariants, which weights are kept, and what a run folder says."""

import json
import math
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from cllm4rec import pretrain
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load, neural
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.corpora import Corpus
from cllm4rec.text.histories import HistoryOptions, RecommendationCorpus, fill, prompt_batch
from cllm4rec.text.prompts import Template
from cllm4rec.text.ragged import Batch, Ragged, cut_by_length
from cllm4rec.training import loop, losses
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import EpochRecord, Objective, grouped_by_length
from cllm4rec.training.losses import multinomial_nll, pull
from cllm4rec.training.rehearsal import TIMED_STEPS, _typical_steps

QUICK = TrainConfig(epochs=4, batch_size=16, warmup_steps=2)
N_ROWS, N_CLASSES, WIDTH = 9, 11, 5


@cache
def small_world() -> Dataset:
    """41 readers (no multiple of a batch), 30 books with titles, texts and reviews."""
    world = taste_world(0, n_users=41, n_items=30, n_events=10)
    return build_dataset(world.events, world.items)


# ---------------------------------------------------------------------------------------------------------------- losses


def example(shown: bool) -> dict[str, Tensor]:
    """Rows 0 and 4 have several targets (row 4 one of them twice), rows 2, 5 and 8 have none."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "states": torch.randn(N_ROWS, WIDTH, generator=generator, dtype=torch.float64),
        "classes": torch.randn(N_CLASSES, WIDTH, generator=generator, dtype=torch.float64),
        "rows": torch.tensor([0, 0, 0, 1, 3, 4, 4, 4, 6, 7]),
        "targets": torch.tensor([2, 10, 5, 0, 7, 1, 1, 9, 3, 4]),
    }
    if shown:
        inputs["shown_rows"] = torch.tensor([0, 0, 1, 2, 4, 6, 6, 6, 8])
        inputs["shown"] = torch.tensor([0, 1, 10, 4, 0, 2, 4, 10, 0])
    return inputs


def dense_nll(
    states: Tensor,
    classes: Tensor,
    rows: Tensor,
    targets: Tensor,
    shown_rows: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    logits = states @ classes.T
    if shown_rows is not None and shown is not None:
        excluded = torch.zeros_like(logits, dtype=torch.bool)
        excluded[shown_rows, shown] = True
        logits = logits.masked_fill(excluded, -torch.inf)
    return -logits.log_softmax(dim=1)[rows, targets].sum()


@pytest.mark.parametrize("shown", [False, True], ids=["all classes", "shown classes left out"])
@pytest.mark.parametrize("fewest_rows", [1, N_ROWS], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [N_ROWS, 4, 3, 1])
def test_multinomial_nll_and_gradients_equal_a_dense_float64_reference(
    shown: bool, rows_at_once: int, fewest_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", rows_at_once * N_CLASSES)
    monkeypatch.setattr(losses, "FEWEST_ROWS", fewest_rows)
    exact = example(shown)
    for name in ("states", "classes"):
        exact[name].requires_grad_(True)
    expected = dense_nll(**exact)
    (2.5 * expected).backward()
    single = {name: one.detach().float() if one.is_floating_point() else one for name, one in exact.items()}
    for name in ("states", "classes"):
        single[name].requires_grad_(True)
    loss = multinomial_nll(**single)
    (2.5 * loss).backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name in ("states", "classes"):
        torch.testing.assert_close(single[name].grad.double(), exact[name].grad, rtol=1e-5, atol=1e-5)
    assert (single["states"].grad[[2, 5, 8]] == 0).all(), "rows without targets"


@pytest.mark.parametrize("fewest_rows", [1, N_ROWS], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("sureness", [0.0, 4.0, 8.0, 12.0])
def test_under_autocast_products_alone_are_rounded(sureness: float, fewest_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 has 8 bits, so that a logit may be off by 1 in 512. States that are sure of their targets have a loss and a
    gradient near zero all the same: what is rounded is p - 1, not p."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * N_CLASSES)
    monkeypatch.setattr(losses, "FEWEST_ROWS", fewest_rows)
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(N_CLASSES, 64, generator=generator).bfloat16()
    rows, targets = torch.arange(N_ROWS), torch.randint(N_CLASSES, (N_ROWS,), generator=generator)
    towards = sureness * classes[targets] / classes[targets].float().square().sum(1, keepdim=True)
    states = (torch.randn(N_ROWS, 64, generator=generator) / 16 + towards).bfloat16()
    double, single = ([one.to(kind).requires_grad_() for one in (states, classes)] for kind in (torch.float64, torch.float32))
    expected = dense_nll(*double, rows, targets)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = multinomial_nll(*single, rows, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)
    for one, exact in zip(single, double, strict=True):
        error = (one.grad.double() - exact.grad).norm() / exact.grad.norm()
        assert 1e-4 < error < 0.05, "rounded, and no more"


def test_multinomial_nll_by_hand() -> None:
    """Two equal logits: each target costs log 2; a shown class leaves one of them, which then costs nothing."""
    states, classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 7.0], [3.0, -1.0], [9.0, 9.0]])
    row, target = torch.tensor([0]), torch.tensor([1])
    left_out = {"shown_rows": torch.tensor([0]), "shown": torch.tensor([2])}
    assert multinomial_nll(states, classes, row, target, **left_out).item() == pytest.approx(math.log(2), rel=1e-6)
    left_out = {"shown_rows": torch.tensor([0, 0]), "shown": torch.tensor([0, 2])}
    assert multinomial_nll(states, classes, row, target, **left_out).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("logits_at_once", [1 << 21, 1])
@pytest.mark.parametrize("n_rows", [0, 2])
def test_a_state_without_targets_adds_nothing_though_all_classes_are_left_out(
    n_rows: int, logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", logits_at_once)
    states, classes = torch.ones(n_rows, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    everything = {"shown_rows": torch.arange(n_rows).repeat_interleave(2), "shown": torch.arange(2).repeat(n_rows)}
    loss = multinomial_nll(states, classes, none, none, **everything)
    loss.backward()
    assert loss.item() == 0
    assert (states.grad == 0).all()
    assert (classes.grad == 0).all()


@pytest.mark.parametrize("wanted", ["states", "classes"])
def test_multinomial_nll_gives_the_gradient_of_the_one_input_that_needs_it(wanted: str) -> None:
    exact = example(shown=True)
    exact[wanted].requires_grad_(True)
    dense_nll(**exact).backward()
    single = {name: one.detach().float() if one.is_floating_point() else one for name, one in exact.items()}
    single[wanted].requires_grad_(True)
    multinomial_nll(**single).backward()
    torch.testing.assert_close(single[wanted].grad.double(), exact[wanted].grad, rtol=1e-5, atol=1e-5)
    other = {"states": "classes", "classes": "states"}[wanted]
    assert single[other].grad is None


def test_the_gradients_of_a_loss_are_not_given_twice() -> None:
    """They are scaled in place: a second time they would be wrong."""
    inputs = example(shown=False)
    single = {name: one.float().requires_grad_() if one.is_floating_point() else one for name, one in inputs.items()}
    loss = 2 * multinomial_nll(**single)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_multinomial_nll_is_as_large_without_gradients() -> None:
    inputs = example(shown=True)
    with torch.no_grad():
        assert multinomial_nll(**inputs).item() == pytest.approx(dense_nll(**inputs).item(), rel=1e-5)


def test_pull_by_hand() -> None:
    """|(1,2)|^2 once, |(3,4) - (1,1)|^2 = 13 twice at half weight: 5 + 13 = 18; the centre is not pulled."""
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], requires_grad=True)
    centre = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    ids, weights = torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.5, 0.5])
    value = pull(table[ids], centre[ids], weights)
    value.backward()
    assert value.item() == 18
    assert table.grad.tolist() == [[2, 4], [4, 6], [0, 0]]
    assert centre.grad is None
    assert pull(table[ids], None, weights).item() == 5 + 25


# ----------------------------------------------------------------------------------------------------------- micro-batches


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_batches_of_eight_equal_eight_micro_batches_of_one(stage: str) -> None:
    start = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
    tables = []
    for accumulation in (1, 8):
        torch.manual_seed(0)
        config = TrainConfig(epochs=1, batch_size=8, accumulation=accumulation, warmup_steps=2)
        model = CLLM4Rec(start.config)
        if stage == "finetune":
            model.fit(small_world().train, None, replace(config, accumulation=1), "pretrain")
        before = None if stage == "pretrain" else model.net.collaborative.whole()
        model.fit(small_world().train, None, config, stage)
        assert before is None or not torch.equal(before, model.net.collaborative.whole())
        tables.append((model.net.collaborative.whole(), model.net.content.whole()))
    for one, other in zip(*tables, strict=True):
        assert ((one - other).norm() / one.norm()).item() < 1e-5


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_batch_computed_in_two_parts_is_the_same_batch(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long histories apart from short ones: less padding, the same step."""
    tables, n_parts = [], []

    def whole(examples: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return examples[:0], examples

    def counted(examples: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = cut_by_length(examples, lengths)
        n_parts.append(1 + (len(both[0]) > 0))
        return both

    config = TrainConfig(epochs=1, batch_size=16, warmup_steps=2)
    for cut in (counted, whole):
        monkeypatch.setattr(loop, "cut_by_length", cut)
        model = CLLM4Rec(CLLM4RecConfig(content_warmup=0)).fit(small_world().train, None, config, "pretrain")
        if stage == "finetune":
            model.fit(small_world().train, None, config, stage)
        tables.append((model.net.collaborative.whole(), model.net.content.whole()))
    assert set(n_parts) == {1, 2}
    for one, other in zip(*tables, strict=True):
        assert ((one - other).norm() / one.norm()).item() < 1e-5


# ------------------------------------------------------------------------------------------------------- what a state sees


@cache
@torch.enable_grad()
def rough_model() -> CLLM4Rec:
    """A model whose layers do something: those made here start as the identity."""
    model = CLLM4Rec().fit(small_world().train, None, TrainConfig(epochs=1, batch_size=16), "pretrain")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.net.backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for table in (model.net.collaborative, model.net.content):
            table.fill(0.1 * torch.randn(table.whole().shape, generator=generator))
    model.net.eval()
    return model


def recommendation_batch(histories: list[list[int]]) -> dict[str, Tensor]:
    model = rough_model()
    items = Ragged.of([np.array(history, dtype=np.int64) for history in histories])
    users = np.arange(len(histories))
    template = Template.compile("recommend", model.tokenizer)
    return prompt_batch(model.tokenizer, *fill(template, model.tokenizer, users, items, np.ones(len(users), dtype=bool)))


def order_free(batch: dict[str, Tensor]) -> Tensor:
    free = torch.zeros_like(batch["mask"]).flatten()
    free[batch["pool"]] = True
    return free.view_as(batch["mask"])


@torch.no_grad()
@pytest.mark.parametrize("as_set", [False, True], ids=["causal", "order-free"])
def test_padding_changes_nothing(as_set: bool) -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2, 3, 4], [5, 6, 7, 8]])
    free = order_free(batch) if as_set else None
    states = net.backbone(batch["tokens"], batch["mask"], net.collaborative, free)
    for filler in (0, 7, net.backbone.n_words + 3):
        pad = torch.full((2, 5), filler)
        tokens = torch.cat([batch["tokens"], pad], dim=1)
        mask = torch.cat([batch["mask"], torch.zeros(2, 5, dtype=torch.bool)], dim=1)
        wider = None if free is None else torch.cat([free, torch.zeros(2, 5, dtype=torch.bool)], dim=1)
        padded = net.backbone(tokens, mask, net.collaborative, wider)[:, : states.shape[1]]
        torch.testing.assert_close(padded, states, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("finetuned", [False, True], ids=["causal last token", "pooled order-free"])
def test_a_history_has_the_same_state_alone_and_beside_a_longer_one(finetuned: bool) -> None:
    net = rough_model().net
    alone = net.user_states(recommendation_batch([[1, 2, 3]]), finetuned)[0]
    beside = net.user_states(recommendation_batch([[1, 2, 3], list(range(4, 20))]), finetuned)[0]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_order_free_attention_does_not_see_the_order_of_the_shown_items() -> None:
    net, shown = rough_model().net, list(range(3, 17))
    shuffled = np.random.default_rng(0).permutation(shown).tolist()
    one, other = recommendation_batch([shown]), recommendation_batch([shuffled])
    torch.testing.assert_close(net.user_states(one), net.user_states(other), rtol=1e-5, atol=1e-5)
    at_query = [
        net.backbone(batch["tokens"], batch["mask"], net.collaborative, order_free(batch)).flatten(0, 1)[batch["query"]]
        for batch in (one, other)
    ]
    torch.testing.assert_close(*at_query, rtol=1e-5, atol=1e-5)
    causal = [net.user_states(batch, finetuned=False) for batch in (one, other)]
    assert not torch.allclose(*causal, rtol=1e-3, atol=1e-3), "the layers must do something for this to say anything"


@torch.no_grad()
def test_causal_attention_sees_no_later_token() -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2, 3, 4, 5, 6]])
    changed = batch["tokens"].clone()
    place = int(batch["pool"][3])
    changed[0, place] = net.backbone.n_words + net.n_users + 20
    one, other = (net.backbone(tokens, batch["mask"], net.collaborative)[0] for tokens in (batch["tokens"], changed))
    torch.testing.assert_close(one[:place], other[:place], rtol=1e-6, atol=1e-6)
    for position in range(place, one.shape[0]):
        assert not torch.allclose(one[position], other[position], rtol=1e-3, atol=1e-3), position


@torch.no_grad()
def test_ids_read_the_table_that_is_given_and_words_do_not() -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2]])
    place = int(batch["pool"][0])
    one = net.backbone(batch["tokens"], batch["mask"], net.collaborative)[0]
    table = net.collaborative.whole()
    table[net.n_users + 1] *= -1
    other = net.backbone(batch["tokens"], batch["mask"], table)[0]
    torch.testing.assert_close(one[:place], other[:place], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(one[place], other[place], rtol=1e-3)


def test_mutual_weights_of_an_epoch_sum_to_one_for_each_id_that_occurs() -> None:
    model, train = rough_model(), small_world().train.interactions
    corpus = RecommendationCorpus(train, model.tokenizer, HistoryOptions(1024, user_dropping=0.3))
    total, selection = torch.zeros(train.n_users + train.n_items), corpus.selection(3)
    for start in range(0, len(selection), 7):
        batch = corpus.batch(selection[start : start + 7], 3)
        total.index_add_(0, batch["ids"], batch["weights"])
    occurs = total > 0
    torch.testing.assert_close(total[occurs], torch.ones(int(occurs.sum())), rtol=1e-5, atol=1e-5)
    assert occurs[train.n_users :].sum() > 0
    assert not occurs[: train.n_users].all(), "dropped user tokens do not occur"


# -------------------------------------------------------------------------------------------------- which weights are kept


class Course:
    """A fit whose validation metric is given; notes the tables after each epoch and whenever weights are kept."""

    def __init__(self, qualities: list[float] | None, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[EpochRecord] = []
        self.after_epoch: list[Tensor] = []
        self.kept: list[Tensor] = []
        self.model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
        given = iter(qualities or [])
        monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))
        validation = None if qualities is None else small_world().validation
        self.model.fit(small_world().train, validation, config, "pretrain", self._on_epoch, self._on_best)

    @property
    def table(self) -> Tensor:
        return self.model.net.collaborative.whole()

    def _on_epoch(self, record: EpochRecord) -> None:
        self.records.append(record)
        self.after_epoch.append(self.table)

    def _on_best(self) -> None:
        self.kept.append(self.table)


def test_the_best_epoch_is_served_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course([0.1, 0.5, 0.3, 0.2], QUICK, monkeypatch)
    assert [record.best for record in course.records] == [True, True, False, False]
    assert [record.validation for record in course.records] == [0.1, 0.5, 0.3, 0.2]
    assert len(course.kept) == 2
    assert torch.equal(course.table, course.kept[-1])
    assert torch.equal(course.table, course.after_epoch[1])
    assert not torch.equal(course.table, course.after_epoch[-1])


def test_an_equal_later_epoch_does_not_replace_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course([0.5, 0.5, 0.5, 0.5], QUICK, monkeypatch)
    assert torch.equal(course.table, course.after_epoch[0])


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 3), (2, 4), (3, 8)])
def test_patience_counts_the_epochs_without_a_better_one(patience: int, n_epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = [0.2, 0.3, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1]
    course = Course(qualities, replace(QUICK, epochs=20, patience=patience), monkeypatch)
    assert len(course.records) == n_epochs
    best = int(np.argmax(qualities[:n_epochs]))
    assert torch.equal(course.table, course.after_epoch[best])


def test_epochs_that_are_not_validated_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first epoch, every third one then, and the last; the best of them is served, and patience counts epochs."""
    course = Course([0.2, 0.3, 0.1, 0.1], replace(QUICK, epochs=9, patience=5, validate_every=3), monkeypatch)
    validated = [record.epoch for record in course.records if record.validation is not None]
    assert (validated, len(course.records)) == ([0, 3, 6, 8], 9)
    assert [record.epoch for record in course.records if record.best] == [0, 3]
    assert torch.equal(course.table, course.after_epoch[3])
    assert len(course.kept) == 2
    patient = Course([0.2, 0.3, 0.1, 0.1], replace(QUICK, epochs=50, patience=5, validate_every=3), monkeypatch)
    assert [record.epoch for record in patient.records] == list(range(10)), "six epochs after the best of them"


def test_epochs_end_training_where_patience_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course([0.1, 0.2, 0.3, 0.4, 0.5], replace(QUICK, epochs=5), monkeypatch)
    assert [record.epoch for record in course.records] == [0, 1, 2, 3, 4]


def test_max_minutes_stop_training_and_what_was_learned_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, epochs=1000, patience=1000, max_minutes=1e-9)
    course = Course([0.1] * 1000, config, monkeypatch)
    assert len(course.records) == 1
    assert len(course.kept) == 1
    assert torch.equal(course.table, course.kept[0])


def test_max_minutes_stop_within_the_warm_up_too() -> None:
    records: list[EpochRecord] = []
    config = replace(QUICK, epochs=1000, max_minutes=1e-9)
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=5))
    model.fit(small_world().train, small_world().validation, config, "pretrain", records.append)
    assert len(records) == 1
    assert records[0].validation is not None


def test_without_validation_the_last_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course(None, QUICK, monkeypatch)
    assert len(course.records) == QUICK.epochs
    assert all(record.validation is None and not record.best for record in course.records)
    assert torch.equal(course.table, course.after_epoch[-1])
    assert torch.equal(course.table, course.kept[-1])


def test_warm_up_epochs_read_content_alone_and_are_not_counted() -> None:
    records: list[EpochRecord] = []
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=2))
    config = replace(QUICK, epochs=2)
    model.fit(small_world().train, small_world().validation, config, "pretrain", records.append)
    assert ["collaborative" in record.losses for record in records] == [False, False, True, True]
    assert [record.validation is not None for record in records] == [False, False, True, True]


def test_training_lowers_the_losses() -> None:
    records: list[EpochRecord] = []
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
    model.fit(small_world().train, None, replace(QUICK, epochs=4), "pretrain", records.append)
    for name in ("content", "collaborative"):
        values = [record.losses[name] for record in records]
        assert values[-1] < values[0]


def test_training_runs_of_one_seed_are_equal_and_of_two_differ() -> None:
    tables = []
    for seed in (3, 3, 4):
        model = CLLM4Rec().fit(small_world().train, None, replace(QUICK, epochs=1, seed=seed), "pretrain")
        tables.append(model.net.collaborative.whole())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_an_unknown_stage_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="pretrain, finetune"):
        CLLM4Rec().fit(small_world().train, None, QUICK, "warm-up")


# -------------------------------------------------------------------------------------------------------------- run folder


@pytest.fixture(scope="module")
def run_and_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    small_world().save(folder / "data")
    arguments = ["--dataset", folder / "data", "--output", folder / "run", "--epochs", 2, "--seed", 11]
    pretrain.main([str(one) for one in arguments])
    return folder / "run", folder / "data"


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def copied(run_and_data: tuple[Path, Path], tmp_path: Path) -> Path:
    """A run of its own to spoil; its data stays where it is."""
    target = tmp_path / "run"
    for file in run_and_data[0].rglob("*"):
        if file.is_file():
            place = target / file.relative_to(run_and_data[0])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return target


def test_run_json_says_what_was_run_on_which_data_with_which_versions(run_and_data: tuple[Path, Path]) -> None:
    run, data = run_and_data
    about = json.loads((run / "run.json").read_text())
    assert about["format_version"] == 3
    assert about["system"] == "cllm4rec"
    assert {"cllm4rec", "python", "torch", "transformers", "accelerate", "numpy"} <= set(about["versions"])
    described = json.loads((data / "dataset.json").read_text())
    for name in ("data_sha256", "split_sha256"):
        assert about["dataset"][name] == described[name]
        assert len(about["dataset"][name]) == 64
    assert Path(about["dataset"]["path"]) == data.resolve()
    stage = about["stages"]["pretrain"]
    assert stage["training"]["seed"] == 11
    assert stage["training"]["epochs"] == 2
    assert set(stage["training"]) == {one.name for one in fields(TrainConfig)}
    assert set(stage["system"]) == {one.name for one in fields(CLLM4RecConfig)}
    assert stage["n_processes"] == 1


def test_run_json_of_a_one_stage_system_holds_its_chosen_settings(tmp_path: Path) -> None:
    small_world().save(tmp_path / "data")
    pretrain.main(["--system", "ease", "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "run")])
    about = RunFolder.open(tmp_path / "run").about
    assert about["system"] == "ease"
    assert about["stages"]["pretrain"]["system"]["regularization"] > 0
    assert load(tmp_path / "run").config.regularization == about["stages"]["pretrain"]["system"]["regularization"]


def test_metrics_hold_a_line_an_epoch_with_losses_norms_cosine_and_speed(run_and_data: tuple[Path, Path]) -> None:
    lines = [json.loads(line) for line in (run_and_data[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(3)), "one epoch of content alone, then the two asked for"
    for line in lines:
        assert line["stage"] == "pretrain"
        assert {"content", "content mutual", "content prior"} <= set(line["losses"])
        assert set(line["diagnostics"]) == {"cos(z^l, z^c)"}
        assert -1.0001 <= line["diagnostics"]["cos(z^l, z^c)"] <= 1.0001
        assert line["seconds"] > 0
        assert line["tokens_per_second"] > 0
        values = [*line["losses"].values(), *line["gradient_norms"].values()]
        assert all(math.isfinite(value) and value >= 0 for value in values)
    for line in lines[1:]:
        assert {"collaborative", "collaborative mutual", "collaborative prior"} <= set(line["losses"])
        assert set(line["gradient_norms"]) == {"z^l", "z^c", "backbone"}
        assert 0 <= line["validation"] <= 1
        assert isinstance(line["best"], bool)
    assert any(line["best"] for line in lines)


def test_a_run_folder_loads_by_itself_and_scores(run_and_data: tuple[Path, Path]) -> None:
    run, data = run_and_data
    model, dataset = load(run), Dataset.load(data)
    assert model.name == "cllm4rec"
    assert np.isfinite(model.score(np.arange(3), dataset.train)).all()


def test_an_unknown_format_version_is_refused_clearly(copied: Path) -> None:
    changed(copied / "run.json", format_version=99)
    with pytest.raises(ValueError, match=r"format_version 99 is unknown.*reads 3"):
        load(copied)


def test_a_dataset_prepared_anew_is_refused_clearly(copied: Path, tmp_path: Path) -> None:
    dataset = small_world()
    resplit = replace(dataset, part=np.roll(dataset.part, 1), about={})
    resplit.save(tmp_path / "other")
    with pytest.raises(ValueError, match="split_sha256 differs.*prepared anew"):
        RunFolder.open(copied).dataset(tmp_path / "other")
    fewer = dataset.interactions.select(np.arange(len(dataset.part)) != 5)
    replace(dataset, interactions=fewer, part=np.delete(dataset.part, 5), about={}).save(tmp_path / "fewer")
    with pytest.raises(ValueError, match="data_sha256 differs.*prepared anew"):
        RunFolder.open(copied).dataset(tmp_path / "fewer")


def test_the_same_dataset_is_accepted_at_another_place(copied: Path, tmp_path: Path) -> None:
    small_world().save(tmp_path / "moved")
    assert RunFolder.open(copied).dataset(tmp_path / "moved").n_items == small_world().n_items


def test_a_folder_that_is_no_run_is_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder"):
        load(tmp_path)


def test_a_run_with_weights_is_never_overwritten(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not empty"):
        RunFolder.create(copied, "cllm4rec", small_world(), tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        RunFolder.create(tmp_path / "notes", "cllm4rec", small_world(), tmp_path)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"


def test_a_stage_run_again_replaces_its_own_lines_only(copied: Path) -> None:
    run = RunFolder.open(copied)
    record = EpochRecord(0, {"recommend": 1.0}, {}, {}, 0.5, 1.0, 10.0, True)
    run.begin_stage("finetune", system={}, training={})
    run.record("finetune", record)
    run.begin_stage("finetune", system={}, training={})
    run.record("finetune", record)
    assert [line["stage"] for line in run.metrics()] == ["pretrain"] * 3 + ["finetune"]
    assert set(run.about["stages"]) == {"pretrain", "finetune"}


@pytest.mark.parametrize(
    "rows", [[("a", "x"), ("a", "y")], [(u, i) for u in "abcdefgh" for i in "xyzw"]], ids=["one user", "one taste"]
)
def test_data_without_structure_trains_to_finite_scores(rows: list[tuple[str, str]]) -> None:
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row"))
    model = CLLM4Rec()
    for stage in model.stages:
        model.fit(dataset, None, TrainConfig(epochs=1), stage)
    assert np.isfinite(model.score(np.array([0]), dataset)).all()


def test_training_that_diverges_ends_in_an_error_that_says_so() -> None:
    events = pl.DataFrame({"user_id": list("aabbcc"), "item_id": list("xyyzzx")})
    with pytest.raises(ValueError, match="diverged"):
        CLLM4Rec(CLLM4RecConfig(prior=1e38)).fit(Dataset.from_frame(events), None, TrainConfig(epochs=3, learning_rate=1e6))


class LengthsAlone(Corpus):
    """Examples of which nothing is known but how long they are."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def selection(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths))

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        raise NotImplementedError


def test_steps_of_like_length_come_in_an_order_of_their_own_in_each_epoch() -> None:
    """Within a stretch batches are of like length, but neither ascend nor come twice in the same order."""
    lengths = np.random.default_rng(0).integers(5, 100, 8 * loop.GROUP * 2 + 3)
    corpus, config, orders = LengthsAlone(lengths), TrainConfig(batch_size=8), []
    for epoch in (0, 1):
        order = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
        assert sorted(order.tolist()) == list(range(len(lengths))), "each example once"
        of_stretch = lengths[order[: 8 * loop.GROUP]].reshape(loop.GROUP, 8)
        means = of_stretch.mean(1)
        assert np.ptp(of_stretch, axis=1).mean() < np.ptp(means) / 5, "of like length"
        assert 0.25 < (np.diff(means) > 0).mean() < 0.75, "up as often as down"
        orders.append(means.tolist())
    assert orders[0] != orders[1]


@pytest.mark.parametrize("n_steps", [1, 5, 40])
def test_the_steps_that_a_dry_run_times_stand_for_the_epoch(n_steps: int) -> None:
    """A few very long examples: chosen by place in the epoch, steps of them would be missed or counted too often."""
    corpus = LengthsAlone(np.random.default_rng(0).pareto(1.5, 8 * n_steps).astype(np.int64) + 5)
    config = TrainConfig(batch_size=8)
    (first, *timed), share = _typical_steps(Objective("any", corpus), config)
    order = grouped_by_length(corpus.selection(0), corpus.lengths, config, 0)
    tokens = corpus.lengths[order].reshape(n_steps, 8).sum(1)
    assert first in timed, "warmed up by one of them"
    assert len(set(timed)) == len(timed) == min(n_steps, TIMED_STEPS)
    assert share * tokens[timed].mean() == pytest.approx(tokens.mean())
    assert share == pytest.approx(1.0, abs=0.25), "their tokens alone come near"
