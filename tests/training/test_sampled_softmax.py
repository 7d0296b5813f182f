"""A softmax over sampled items, corrected for the sampling."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.item_sampler import ItemSampler
from cllm4rec.training.losses import SampledClasses, multinomial_nll, sampled_nll
from tests.support.skewed import N_ITEMS, skewed_interactions

WIDTH = 5


def inputs(n_rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `multinomial_nll`; row 3 has no target."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "states": torch.randn(n_rows, WIDTH, generator=generator),
        "classes": torch.randn(N_ITEMS, WIDTH, generator=generator),
        "rows": torch.tensor([0, 0, 1, 2, 2, 2, 4, 5]),
        "targets": torch.tensor([3, 9, 3, 0, 1, 29, 7, 12]),
        "excluded_rows": torch.tensor([0, 2, 2, 3, 5]),
        "excluded": torch.tensor([5, 6, 8, 3, 28]),
    }


def by_hand(given: dict[str, Tensor], sample: list[int], log_p: Tensor) -> Tensor:
    """Target by target: the negative log share among the target and the sample without excluded items."""
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(given["rows"].tolist(), given["targets"].tolist(), strict=True):
        excluded = given["excluded"][given["excluded_rows"] == row].tolist()
        others = [item for item in sample if item != target and item not in excluded]
        among = torch.tensor([target, *others], dtype=torch.int64)
        logits = given["classes"][among] @ given["states"][row] - log_p[among]
        total = total - logits.log_softmax(0)[0]
    return total


@pytest.mark.parametrize("sample", [[0, 3, 5, 6, 7, 20, 28], [11], list(range(N_ITEMS))])
def test_the_loss_and_its_gradients_by_hand(sample: list[int]) -> None:
    given = inputs()
    log_p = torch.log(torch.linspace(0.9, 0.1, N_ITEMS, dtype=torch.float64))
    exact = {name: given[name].double().requires_grad_() for name in ("states", "classes")}
    expected = by_hand(given | exact, sample, log_p)
    (3 * expected).backward()
    states, classes = (given[name].clone().requires_grad_() for name in ("states", "classes"))
    drawn = torch.tensor(sample)
    known = SampledClasses(drawn, classes[drawn], log_p[drawn].float())
    excluded, rows, targets = (given["excluded_rows"], given["excluded"]), given["rows"], given["targets"]
    loss = sampled_nll(states, known, classes[targets], rows, targets, log_p[targets].float(), *excluded)
    (3 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(states.grad.double(), exact["states"].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classes.grad.double(), exact["classes"].grad, rtol=1e-4, atol=1e-5)
    assert (states.grad[3] == 0).all(), "a state without targets"


def test_a_sample_of_all_classes_is_the_exact_softmax() -> None:
    given = inputs()
    every, none = torch.arange(N_ITEMS), torch.zeros(N_ITEMS)
    known, targets = SampledClasses(every, given["classes"], none), given["targets"]
    rows, excluded = given["rows"], (given["excluded_rows"], given["excluded"])
    wanted = given["classes"][targets]
    sampled = sampled_nll(given["states"], known, wanted, rows, targets, none[targets], *excluded)
    assert sampled.item() == pytest.approx(multinomial_nll(**given).item(), rel=1e-6)


def test_the_distribution_is_learned_from_samples() -> None:
    """Logits learned from samples that favour popular items converge to log probabilities, if corrected."""
    train = skewed_interactions(20_000)
    share = torch.from_numpy(np.bincount(train.items, minlength=N_ITEMS) / len(train)).float()
    sampler = ItemSampler(train, 6, 1)
    gaps: list[float] = []
    for corrected in (True, False):
        logits = torch.zeros(N_ITEMS, 1, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.02)
        for step in range(2000):
            targets = torch.from_numpy(train.items[step * 6 % 19_000 :][:64])
            drawn = sampler.draw(0, step)
            log_p = torch.from_numpy(sampler.log_inclusion(np.arange(N_ITEMS))) * corrected
            sample = torch.from_numpy(drawn)
            known = SampledClasses(sample, logits[sample], log_p[sample])
            rows = torch.arange(len(targets))
            states = torch.ones(len(targets), 1)
            loss = sampled_nll(states, known, logits[targets], rows, targets, log_p[targets])
            optimizer.zero_grad()
            (loss / len(targets)).backward()
            optimizer.step()
        learned = logits.detach()[:, 0].softmax(0)
        gaps.append(float((learned.log() - share.log()).square().mul(share).sum().sqrt()))
    assert gaps[0] < 0.2
    assert gaps[1] > 2 * gaps[0], "without the correction"


def test_equal_targets_of_a_state_learn_equal_logits_whatever_their_popularity() -> None:
    """Users interact with a popular and a rare item, always both, and no others."""
    train = skewed_interactions(20_000)
    sampler, both = ItemSampler(train, 6, 1), torch.tensor([0, N_ITEMS - 1])
    logits = torch.zeros(N_ITEMS, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.02)
    log_p = torch.from_numpy(sampler.log_inclusion(np.arange(N_ITEMS)))
    assert log_p[both[0]] - log_p[both[1]] > 1.5
    for step in range(1500):
        sample = torch.from_numpy(sampler.draw(0, step))
        known = SampledClasses(sample, logits[sample], log_p[sample])
        rows = torch.zeros(2, dtype=torch.int64)
        optimizer.zero_grad()
        sampled_nll(torch.ones(1, 1), known, logits[both], rows, both, log_p[both]).backward()
        optimizer.step()
    learned = logits.detach()[both, 0]
    assert abs(float(learned[0] - learned[1])) < 0.7
