"""A softmax over a sample of the items, corrected for how they were drawn."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.sampling import ItemSampler
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import DrawnClasses, multinomial_nll, sampled_nll

N_ITEMS, WIDTH = 30, 5


def popular(n: int = 400) -> Interactions:
    """Item j occurs about 1 / (j + 1) as often as item 0."""
    share = 1 / (1 + np.arange(N_ITEMS))
    items = np.random.default_rng(0).choice(N_ITEMS, n, p=share / share.sum())
    return Interactions(np.zeros(n, dtype=np.int64), items, 1, N_ITEMS)


@pytest.mark.parametrize("n_draws", [1, 5, 40])
def test_an_item_is_in_a_sample_as_often_as_it_says(n_draws: int) -> None:
    sampler = ItemSampler(popular(), n_draws, 7)
    samples = [sampler.draw(step // 100, step % 100) for step in range(4000)]
    assert all(len(one) <= n_draws and (np.diff(one) > 0).all() for one in samples)
    found = np.bincount(np.concatenate(samples), minlength=N_ITEMS) / len(samples)
    expected = np.exp(sampler.log_inclusion(np.arange(N_ITEMS)))
    assert expected[0] > 1.3 * expected[-1]
    assert (np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / len(samples)) + 1e-3).all()


def test_a_sample_is_that_of_its_step() -> None:
    one, other, third = (ItemSampler(popular(), 8, *key) for key in ((7, 1), (7, 1), (8, 1)))
    assert one.draw(2, 3).tolist() == other.draw(2, 3).tolist()
    assert len({tuple(two.draw(*at)) for two in (one, third) for at in ((2, 3), (2, 4), (3, 3))}) == 6


def inputs(n_rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "states": torch.randn(n_rows, WIDTH, generator=generator),
        "classes": torch.randn(N_ITEMS, WIDTH, generator=generator),
        "rows": torch.tensor([0, 0, 1, 2, 2, 2, 4, 5]),
        "targets": torch.tensor([3, 9, 3, 0, 1, 29, 7, 12]),
        "shown_rows": torch.tensor([0, 2, 2, 3, 5]),
        "shown": torch.tensor([5, 6, 8, 3, 28]),
    }


def by_hand(given: dict[str, Tensor], sample: list[int], log_p: Tensor) -> Tensor:
    """Target by target: minus the log of its share among itself and the sample without what was shown."""
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(given["rows"].tolist(), given["targets"].tolist(), strict=True):
        shown = given["shown"][given["shown_rows"] == row].tolist()
        among = torch.tensor([target] + [one for one in sample if one != target and one not in shown], dtype=torch.int64)
        logits = given["classes"][among] @ given["states"][row] - log_p[among]
        total = total - logits.log_softmax(0)[0]
    return total


@pytest.mark.parametrize("sample", [[0, 3, 5, 6, 7, 20, 28], [11], list(range(N_ITEMS))])
def test_the_loss_and_its_gradients_by_hand(sample: list[int]) -> None:
    given = inputs()
    log_p = torch.log(torch.linspace(0.9, 0.1, N_ITEMS, dtype=torch.float64))
    exact = {name: one.double().requires_grad_() if one.is_floating_point() else one for name, one in given.items()}
    expected = by_hand(exact, sample, log_p)
    (3 * expected).backward()
    states, classes = (given[name].clone().requires_grad_() for name in ("states", "classes"))
    drawn = torch.tensor(sample)
    known, shown = DrawnClasses(drawn, classes[drawn], log_p[drawn].float()), (given["shown_rows"], given["shown"])
    targets = given["targets"]
    loss = sampled_nll(states, known, classes[targets], given["rows"], targets, log_p[targets].float(), *shown)
    (3 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(states.grad.double(), exact["states"].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classes.grad.double(), exact["classes"].grad, rtol=1e-4, atol=1e-5)
    assert (states.grad[3] == 0).all(), "a state without targets"


def test_a_sample_of_all_classes_is_the_exact_softmax() -> None:
    given = inputs()
    every, none = torch.arange(N_ITEMS), torch.zeros(N_ITEMS)
    known, targets = DrawnClasses(every, given["classes"], none), given["targets"]
    shown = (given["shown_rows"], given["shown"])
    sampled = sampled_nll(given["states"], known, given["classes"][targets], given["rows"], targets, none[targets], *shown)
    assert sampled.item() == pytest.approx(multinomial_nll(**given).item(), rel=1e-6)


def test_what_is_learned_from_samples_is_the_distribution_itself() -> None:
    """Logits of a distribution, learned from samples that favour its head, end at its logarithm; uncorrected they would not."""
    train = popular(20_000)
    share = torch.from_numpy(np.bincount(train.items, minlength=N_ITEMS) / len(train)).float()
    sampler, gaps = ItemSampler(train, 6, 1), []
    for corrected in (True, False):
        logits = torch.zeros(N_ITEMS, 1, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.02)
        for step in range(2000):
            targets = torch.from_numpy(train.items[step * 6 % 19_000 :][:64])
            drawn = sampler.draw(0, step)
            log_p = torch.from_numpy(sampler.log_inclusion(np.arange(N_ITEMS))) * corrected
            sample = torch.from_numpy(drawn)
            known = DrawnClasses(sample, logits[sample], log_p[sample])
            rows = torch.arange(len(targets))
            loss = sampled_nll(torch.ones(len(targets), 1), known, logits[targets], rows, targets, log_p[targets])
            optimizer.zero_grad()
            (loss / len(targets)).backward()
            optimizer.step()
        learned = logits.detach()[:, 0].softmax(0)
        gaps.append(float((learned.log() - share.log()).square().mul(share).sum().sqrt()))
    assert gaps[0] < 0.2
    assert gaps[1] > 2 * gaps[0], "without the correction"


def test_equally_right_targets_of_one_state_end_equal_whatever_their_popularity() -> None:
    """A popular and a rare item, always taken together by users who take nothing else."""
    train = popular(20_000)
    sampler, both = ItemSampler(train, 6, 1), torch.tensor([0, N_ITEMS - 1])
    logits = torch.zeros(N_ITEMS, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.02)
    log_p = torch.from_numpy(sampler.log_inclusion(np.arange(N_ITEMS)))
    assert log_p[both[0]] - log_p[both[1]] > 1.5
    for step in range(1500):
        sample = torch.from_numpy(sampler.draw(0, step))
        known = DrawnClasses(sample, logits[sample], log_p[sample])
        rows = torch.zeros(2, dtype=torch.int64)
        optimizer.zero_grad()
        sampled_nll(torch.ones(1, 1), known, logits[both], rows, both, log_p[both]).backward()
        optimizer.step()
    learned = logits.detach()[both, 0]
    assert abs(float(learned[0] - learned[1])) < 0.7


def test_a_step_moves_the_items_that_it_read_and_no_others() -> None:
    world = taste_world(0, n_users=60, n_items=N_ITEMS)
    dataset = build_dataset(world.events, world.items)
    model = CLLM4Rec(CLLM4RecConfig(sampled=3, content_ratio=0.0))
    before = CLLM4Rec(model.config).fit(dataset.train, None, TrainConfig(epochs=0)).net.collaborative.whole()
    objective = None
    for stage in model.stages:
        model.fit(dataset.train, None, TrainConfig(epochs=0), stage)
        (objective,) = model._objectives(dataset.train, stage, TrainConfig())
        batch = objective.corpus.batch(np.arange(2), 0, 5)
        assert len(batch["sample"]) <= 3
        model.net.zero_grad()
        torch.stack(list(model.net(objective.name, batch).values())).sum().backward()
        items = model.net.collaborative.items.weight.grad.coalesce().indices()[0].tolist()
        read = (batch["ids"] - dataset.n_users)[batch["ids"] >= dataset.n_users]
        assert set(items) == {*read.tolist(), *batch["sample"].tolist(), *batch["targets"].tolist()} != set(range(N_ITEMS))
    trained = model.fit(dataset.train, dataset.validation, TrainConfig(epochs=3, batch_size=8))
    assert not torch.equal(trained.net.collaborative.whole(), before)
    assert trained.recommend(np.arange(5), dataset.train, 4).items.shape == (5, 4)


def test_batches_of_one_step_share_its_sample() -> None:
    world = taste_world(0, n_users=60, n_items=N_ITEMS)
    dataset = build_dataset(world.events, world.items)
    model = CLLM4Rec(CLLM4RecConfig(sampled=8, content_ratio=0.0)).fit(dataset.train, None, TrainConfig(epochs=0))
    corpus = model._objectives(dataset.train, "pretrain", TrainConfig())[0].corpus
    one, two, three = corpus.batches([np.arange(3), np.arange(3, 9), np.arange(9, 12)], 1, [4, 4, 5])
    assert torch.equal(one["sample"], two["sample"])
    assert one["sample"].tolist() != three["sample"].tolist()
    assert torch.equal(one["sample"], corpus.batch(np.arange(20, 22), 1, 4)["sample"])
