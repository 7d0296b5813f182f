"""The two contrastive losses, against a dense reference and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cllm4rec.corpora.rsllm import ContrastiveCorpus
from cllm4rec.data.candidates import title_groups
from cllm4rec.models.rsllm.config import FORMS
from cllm4rec.models.rsllm.net import mean_states
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training import blocked_nll
from cllm4rec.training.losses import item_contrast, user_contrast
from tests.support.rsllm import QUICK, sasrec, small_dataset, untrained


@pytest.mark.parametrize("fewest_rows", [1, 50], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [50, 3, 1])
def test_the_user_contrast_and_its_gradients_equal_a_dense_float64_reference(
    rows_at_once: int, fewest_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", rows_at_once * 12)
    monkeypatch.setattr(blocked_nll, "FEWEST_ROWS", fewest_rows)
    generator = torch.Generator().manual_seed(0)
    states, projected = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (8, 20))
    targets, hard = (torch.randint(20, shape, generator=generator) for shape in ((8,), (8, 3)))
    sample = torch.randperm(20, generator=generator)[:12]
    groups = torch.randint(9, (20,), generator=generator)
    double = [tensor.clone().requires_grad_() for tensor in (states, projected)]
    expected = torch.zeros((), dtype=torch.float64)
    for r in range(8):  # by definition, row by row
        others = [j for j in [*sample.tolist(), *hard[r].tolist()] if groups[j] != groups[targets[r]]]
        logits = torch.stack([double[0][r] @ double[1][j] for j in [int(targets[r]), *others]])
        expected = expected - logits.log_softmax(0)[0]
    (2.5 * expected).backward()
    single = [tensor.detach().float().requires_grad_() for tensor in (states, projected)]
    loss = user_contrast(*single, targets, sample, groups, hard)
    (2.5 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for tensor, exact in zip(single, double, strict=True):
        torch.testing.assert_close(tensor.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_the_user_contrast_of_two_histories_by_hand() -> None:
    """States (1, 0) and (0, 2), items (1, 0) and (0, 1), targets 0 and 1: logits [[1, 0], [0, 2]]."""
    states, projected = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2)
    loss = user_contrast(states, projected, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)), rel=1e-6)
    targets, sample, groups, hard = map(torch.tensor, ([0, 0], [0], [0, 1], [[1], [1]]))
    loss = user_contrast(states, projected, targets, sample, groups, hard)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2)), rel=1e-6)


def test_the_item_contrast_of_two_titles_by_hand() -> None:
    """Lengths do not matter: cosines [[1, 0], [0.6, 0.8]] over a temperature of 0.5."""
    titles, projected = torch.tensor([[3.0, 0.0], [0.6, 0.8]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    both = torch.tensor([0, 1])
    loss = item_contrast(titles, projected, both, both, both, 0.5)
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp((0.6 - 0.8) / 0.5))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_items_that_share_a_title_are_never_each_others_negatives() -> None:
    states, projected = torch.randn(3, 4), torch.randn(4, 4)
    targets, sample = torch.tensor([0, 1, 2]), torch.arange(4)
    shared, distinct = torch.tensor([7, 7, 2, 3]), torch.arange(4)
    others = ((0, [2, 3]), (1, [2, 3]), (2, [0, 1, 3]))  # row, its negatives
    for loss in (user_contrast, lambda *a: item_contrast(*a, 0.3)):
        expected = sum(
            loss(states[[row]], projected, targets[[row]], torch.tensor(negatives), distinct)
            for row, negatives in others
        )
        torch.testing.assert_close(loss(states, projected, targets, sample, shared), expected)
        assert not torch.allclose(loss(states, projected, targets, sample, distinct), expected)


def test_mean_states_of_titles_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 7.0]])
    means, items = mean_states(
        states, torch.tensor([0, 1, 3]), torch.tensor([0, 0, 2]), torch.tensor([10, 11, 12])
    )
    assert means.tolist() == [[2.0, 1.0], [7.0, 7.0]]
    assert items.tolist() == [10, 12], "an item without tokens is left out"


@pytest.mark.parametrize(("setting", "gone"), [("alpha", "C_item"), ("beta", "C_user"), (None, None)])
def test_each_contrastive_loss_can_be_switched_off(setting: str | None, gone: str | None) -> None:
    settings = {} if setting is None else {setting: 0.0}
    model = untrained(**settings).build(small_dataset().train)
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    terms = model.net(objective.name, objective.corpus.batch(np.arange(8), 0))
    assert set(terms) == {"unified", "C_item", "C_user"} - {gone}


def test_the_objective_decides_the_terms() -> None:
    model = untrained(prompt="text").build(small_dataset().train)
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    batch = objective.corpus.batch(np.arange(8), 0)
    assert set(model.net("text", batch)) == {"text"}
    assert len(model.net("unified", batch)) == 3
    with pytest.raises(ValueError, match="objective 'answer' is unknown"):
        model.net("answer", batch)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_the_sum_of_its_micro_batches(form: str) -> None:
    """Micro-batches and processes give the sums of a whole batch, whatever the padding."""
    model = untrained(prompt=form, negatives=20, hard=3)
    model.build(small_dataset().train)
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    examples = np.arange(24)
    whole = model.net(objective.name, objective.corpus.batch(examples, 1, 5))
    micro_batches = [objective.corpus.batch(chunk, 1, 5) for chunk in np.array_split(examples, 5)]
    terms = [model.net(objective.name, batch) for batch in micro_batches]
    for name, value in whole.items():
        torch.testing.assert_close(sum(sums[name] for sums in terms), value, rtol=1e-4, atol=1e-3)


def test_projecting_the_items_of_a_step_gives_what_projecting_all_gives() -> None:
    model = untrained(negatives=20, hard=3).build(small_dataset().train)
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    batch = objective.corpus.batch(np.arange(24), 1, 5)
    items, n_text_tokens, n_items = batch.items, model.tokenizer.n_text_tokens, small_dataset().n_items
    assert len(items) < n_items
    soft = batch.mask & (batch.tokens >= n_text_tokens)
    soft_tokens = n_text_tokens + items[(batch.tokens - n_text_tokens).clamp(min=0)]
    all_items = replace(
        batch,
        tokens=torch.where(soft, soft_tokens, batch.tokens),
        items=torch.arange(n_items),
        groups=torch.tensor(title_groups(small_dataset().items)),
        **{name: items[local] for name, local in vars(batch).items() if name.startswith("local_")},
    )
    terms, expected = (model.net(objective.name, inputs) for inputs in (batch, all_items))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-5)


def test_hard_negatives_are_the_top_unseen_items_of_the_sequential_recommender() -> None:
    model = untrained(negatives=20, hard=4).build(small_dataset().train)
    train = small_dataset().train

    def hard_of(model: RSLLM) -> np.ndarray:
        (objective,) = model.objectives(train, "finetune", QUICK)
        assert isinstance(objective.corpus, ContrastiveCorpus)
        return objective.corpus.hard

    hard = hard_of(model)
    for user in range(train.n_users):
        assert not set(hard[user].tolist()) & set(train.interactions.history(user).tolist())
    expected = sasrec().rank(np.arange(train.n_users), train, 4).items
    np.testing.assert_array_equal(hard, expected)
    assert hard_of(untrained(negatives=60).build(train)).shape == (80, 0), "all items are negatives"
