"""The two contrastive losses, against a dense reference and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from cllm4rec.corpora.rsllm import ContrastiveCorpus
from cllm4rec.data.candidates import title_groups
from cllm4rec.models.rsllm.config import FORMS
from cllm4rec.models.rsllm.net import mean_states
from cllm4rec.models.rsllm.projector import ProjectedItems, Projector
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training import blocked_nll
from cllm4rec.training.losses import contrast
from tests.support.rsllm import QUICK, sasrec, small_dataset, untrained


@pytest.mark.parametrize("fewest_rows", [1, 50], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [50, 3, 1])
def test_the_contrast_and_its_gradients_equal_a_dense_float64_reference(
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
        negatives = dict.fromkeys([*sample.tolist(), *hard[r].tolist()])  # each once
        others = [j for j in negatives if groups[j] != groups[targets[r]]]
        logits = torch.stack([double[0][r] @ double[1][j] for j in [int(targets[r]), *others]])
        expected = expected - logits.log_softmax(0)[0]
    (2.5 * expected).backward()
    single = [tensor.detach().float().requires_grad_() for tensor in (states, projected)]
    loss = contrast(*single, targets, sample, groups, hard)
    (2.5 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for tensor, exact in zip(single, double, strict=True):
        torch.testing.assert_close(tensor.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_the_contrast_of_two_histories_by_hand() -> None:
    """States (1, 0) and (0, 2), items (1, 0) and (0, 1), targets 0 and 1: logits [[1, 0], [0, 2]]."""
    states, projected = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2)
    loss = contrast(states, projected, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)), rel=1e-6)
    targets, sample, groups, hard = map(torch.tensor, ([0, 0], [0], [0, 1], [[1], [1]]))
    for repeated in (hard, hard.repeat(1, 3)):
        loss = contrast(states, projected, targets, sample, groups, repeated)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2)), rel=1e-6)


def projected_items(n: int, inner: int, width: int) -> tuple[ProjectedItems, torch.Tensor]:
    """P(e_j) of n items, and as float64 vectors (n, width)."""
    generator = torch.Generator().manual_seed(0)
    outer = torch.nn.Linear(inner, width)
    with torch.no_grad():
        outer.weight.copy_(torch.randn(width, inner, generator=generator))
        outer.bias.copy_(torch.randn(width, generator=generator))
    hidden = torch.rand(n, inner, generator=generator)
    return ProjectedItems(hidden, outer), hidden.double() @ outer.weight.double().T + outer.bias.double()


@torch.no_grad()
def test_inner_products_and_cosines_of_projected_items_are_those_of_the_vectors() -> None:
    items, vectors = projected_items(7, inner=4, width=30)
    states = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(items[torch.tensor([6, 0])], vectors[[6, 0]].float())
    factors = torch.cat([items.hidden, torch.ones(7, 1)], dim=1)
    for found, wanted in ((factors, vectors), (items.directions(), functional.normalize(vectors, dim=1))):
        products = items.of_states(states) @ found.T
        torch.testing.assert_close(products.double(), states.double() @ wanted.T, rtol=1e-5, atol=1e-5)


def test_an_item_projected_to_zero_has_no_cosine_and_finite_gradients() -> None:
    projector = Projector(3, 8)
    items = projector.factored(torch.zeros(2, 3))
    products = items.of_states(torch.ones(1, 8)) @ items.directions().T
    assert products.tolist() == [[0.0, 0.0]]
    products.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in projector.parameters() if p.grad is not None)


def test_the_terms_and_their_gradients_are_those_of_projected_vectors() -> None:
    """C_user by inner product with P(e_j), C_item by cosine over the temperature."""
    model = untrained(negatives=20, hard=3, alpha=2.0, beta=0.5).build(small_dataset().train)
    net, config = model.net, model.config
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    batch = objective.corpus.batch(np.arange(24), 1, 5)
    vectors = net.projected(batch.items)
    hidden = net.backbone(batch.tokens, batch.mask, vectors).flatten(0, 1)
    titles, items = mean_states(hidden, batch.title_index, batch.title_rows, batch.local_history)
    directions = functional.normalize(net.norm(titles), dim=1) / config.temperature
    histories, hard = net.norm(hidden[batch.history_index]), batch.local_hard[batch.history_rows]
    shared = (batch.local_sample, batch.groups)
    expected = {
        "C_user": config.beta * contrast(histories, vectors, batch.local_targets, *shared, hard),
        "C_item": config.alpha * contrast(directions, functional.normalize(vectors, dim=1), items, *shared),
    }
    terms = net(objective.name, batch)
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-5)
        of_terms, of_expected = (
            torch.autograd.grad(each, [*parameters.values()], retain_graph=True, allow_unused=True)
            for each in (terms[name], value)
        )
        largest = max(float(wanted.norm()) for wanted in of_expected if wanted is not None)
        for parameter, of_term, wanted in zip(parameters, of_terms, of_expected, strict=True):
            if wanted is None:
                assert of_term is None, parameter
            else:  # what cancels leaves rounding errors of the terms that cancel
                error = float((of_term - wanted).norm())
                assert error <= 1e-4 * float(wanted.norm()) + 1e-6 * largest, f"{name}, {parameter}"


def test_items_that_share_a_title_are_never_each_others_negatives() -> None:
    states, projected = torch.randn(3, 4), torch.randn(4, 4)
    targets, sample = torch.tensor([0, 1, 2]), torch.arange(4)
    shared, distinct = torch.tensor([7, 7, 2, 3]), torch.arange(4)
    others = ((0, [2, 3]), (1, [2, 3]), (2, [0, 1, 3]))  # row, its negatives
    expected = sum(
        contrast(states[[row]], projected, targets[[row]], torch.tensor(negatives), distinct)
        for row, negatives in others
    )
    torch.testing.assert_close(contrast(states, projected, targets, sample, shared), expected)
    assert not torch.allclose(contrast(states, projected, targets, sample, distinct), expected)


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


def test_in_bf16_the_losses_and_the_direction_of_the_step_are_those_of_float32() -> None:
    """A GPU trains in bfloat16, which has 8 significant bits."""
    model = untrained(negatives=20, hard=3).build(small_dataset().train)
    (objective,) = model.objectives(small_dataset().train, "finetune", QUICK)
    batch, net = objective.corpus.batch(np.arange(24), 1, 5), model.net.eval()
    weights = [weight for weight in net.parameters() if weight.requires_grad]

    def losses_and_step(bf16: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms = net(objective.name, batch)
        gradients = torch.autograd.grad(torch.stack([*terms.values()]).sum(), weights, materialize_grads=True)
        return terms, torch.cat([gradient.flatten() for gradient in gradients])

    (terms, step), (expected, exact) = losses_and_step(True), losses_and_step(False)
    for name, value in expected.items():
        assert terms[name].dtype == torch.float32
        assert terms[name] != value
        torch.testing.assert_close(terms[name], value, rtol=0.01, atol=0)
    assert torch.cosine_similarity(step, exact, dim=0) > 0.99
