"""Exact losses and their gradients, against dense references and numbers worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from cllm4rec.training import blocked_nll
from cllm4rec.training.losses import multinomial_nll, squared_distance

N_ROWS, N_CLASSES, WIDTH = 9, 11, 5


def example(excluded: bool) -> dict[str, Tensor]:
    """Rows 0 and 4 have several targets (row 4 one of them twice), rows 2, 5 and 8 have none."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "states": torch.randn(N_ROWS, WIDTH, generator=generator, dtype=torch.float64),
        "classes": torch.randn(N_CLASSES, WIDTH, generator=generator, dtype=torch.float64),
        "rows": torch.tensor([0, 0, 0, 1, 3, 4, 4, 4, 6, 7]),
        "targets": torch.tensor([2, 10, 5, 0, 7, 1, 1, 9, 3, 4]),
    }
    if excluded:
        inputs["excluded_rows"] = torch.tensor([0, 0, 1, 2, 4, 6, 6, 6, 8])
        inputs["excluded"] = torch.tensor([0, 1, 10, 4, 0, 2, 4, 10, 0])
    return inputs


def in_float32(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same inputs as float32 leaves."""
    return {
        name: value.detach().float() if value.is_floating_point() else value for name, value in inputs.items()
    }


def dense_nll(
    states: Tensor,
    classes: Tensor,
    rows: Tensor,
    targets: Tensor,
    excluded_rows: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Tensor:
    """The same loss by one dense log-softmax."""
    logits = states @ classes.T
    if excluded_rows is not None and excluded is not None:
        mask = torch.zeros_like(logits, dtype=torch.bool)
        mask[excluded_rows, excluded] = True
        logits = logits.masked_fill(mask, -torch.inf)
    return -logits.log_softmax(dim=1)[rows, targets].sum()


@pytest.mark.parametrize("excluded", [False, True], ids=["all classes", "some classes excluded"])
@pytest.mark.parametrize("fewest_rows", [1, N_ROWS], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [N_ROWS, 4, 3, 1])
def test_multinomial_nll_and_gradients_equal_a_dense_float64_reference(
    excluded: bool, rows_at_once: int, fewest_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", rows_at_once * N_CLASSES)
    monkeypatch.setattr(blocked_nll, "FEWEST_ROWS", fewest_rows)
    exact = example(excluded)
    for name in ("states", "classes"):
        exact[name].requires_grad_(True)
    expected = dense_nll(**exact)
    (2.5 * expected).backward()
    single = in_float32(exact)
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
def test_under_autocast_products_alone_are_rounded(
    sureness: float, fewest_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 has 8 bits: a logit may be off by 1 in 512.

    States that are sure of their targets still have a loss and a gradient near zero: p - 1 is rounded, not p.
    """
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", 3 * N_CLASSES)
    monkeypatch.setattr(blocked_nll, "FEWEST_ROWS", fewest_rows)
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(N_CLASSES, 64, generator=generator).bfloat16()
    rows, targets = torch.arange(N_ROWS), torch.randint(N_CLASSES, (N_ROWS,), generator=generator)
    towards = sureness * classes[targets] / classes[targets].float().square().sum(1, keepdim=True)
    states = (torch.randn(N_ROWS, 64, generator=generator) / 16 + towards).bfloat16()
    double, single = (
        [matrix.to(dtype).requires_grad_() for matrix in (states, classes)]
        for dtype in (torch.float64, torch.float32)
    )
    expected = dense_nll(*double, rows, targets)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = multinomial_nll(*single, rows, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)
    for rounded, exact in zip(single, double, strict=True):
        error = (rounded.grad.double() - exact.grad).norm() / exact.grad.norm()
        assert 1e-4 < error < 0.05, "rounded, and no more"


def test_multinomial_nll_by_hand() -> None:
    """Two equal logits: the target costs log 2. Without the other class it costs nothing."""
    states, classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 7.0], [3.0, -1.0], [9.0, 9.0]])
    row, target = torch.tensor([0]), torch.tensor([1])
    excluded = {"excluded_rows": torch.tensor([0]), "excluded": torch.tensor([2])}
    loss = multinomial_nll(states, classes, row, target, **excluded)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    excluded = {"excluded_rows": torch.tensor([0, 0]), "excluded": torch.tensor([0, 2])}
    assert multinomial_nll(states, classes, row, target, **excluded).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("logits_at_once", [1 << 21, 1])
@pytest.mark.parametrize("n_rows", [0, 2])
def test_a_state_without_targets_adds_nothing_though_all_classes_are_excluded(
    n_rows: int, logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", logits_at_once)
    states, classes = torch.ones(n_rows, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    everything = {
        "excluded_rows": torch.arange(n_rows).repeat_interleave(2),
        "excluded": torch.arange(2).repeat(n_rows),
    }
    loss = multinomial_nll(states, classes, none, none, **everything)
    loss.backward()
    assert loss.item() == 0
    assert (states.grad == 0).all()
    assert (classes.grad == 0).all()


@pytest.mark.parametrize("wanted", ["states", "classes"])
def test_multinomial_nll_gives_the_gradient_of_the_input_that_needs_it(wanted: str) -> None:
    exact = example(excluded=True)
    exact[wanted].requires_grad_(True)
    dense_nll(**exact).backward()
    single = in_float32(exact)
    single[wanted].requires_grad_(True)
    multinomial_nll(**single).backward()
    torch.testing.assert_close(single[wanted].grad.double(), exact[wanted].grad, rtol=1e-5, atol=1e-5)
    other = {"states": "classes", "classes": "states"}[wanted]
    assert single[other].grad is None


def test_the_gradients_of_a_loss_are_not_given_twice() -> None:
    """They are scaled in place: a second time they would be wrong."""
    inputs = example(excluded=False)
    single = in_float32(inputs)
    for name in ("states", "classes"):
        single[name].requires_grad_(True)
    loss = 2 * multinomial_nll(**single)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_multinomial_nll_is_as_large_without_gradients() -> None:
    inputs = example(excluded=True)
    with torch.no_grad():
        assert multinomial_nll(**inputs).item() == pytest.approx(dense_nll(**inputs).item(), rel=1e-5)


def test_pull_by_hand() -> None:
    """|(1,2)|^2 once, |(3,4) - (1,1)|^2 = 13 twice at half weight: 5 + 13 = 18; the centre is not pulled."""
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], requires_grad=True)
    centre = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    ids, weights = torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.5, 0.5])
    value = squared_distance(table[ids], centre[ids], weights)
    value.backward()
    assert value.item() == 18
    assert table.grad.tolist() == [[2, 4], [4, 6], [0, 0]]
    assert centre.grad is None
    assert squared_distance(table[ids], None, weights).item() == 5 + 25


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("classes_at_once", [1, 4, 64])
def test_a_softmax_over_frozen_classes_is_read_once_and_equals_a_dense_float64_reference(
    classes_at_once: int, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows, n_classes = 9, 64
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", classes_at_once * n_rows)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n_rows, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    classes = torch.randn(n_classes, WIDTH, generator=generator, dtype=torch.float64)
    classes *= torch.linspace(1, 4, n_classes)[:, None]  # the largest logit comes late
    bias, targets = torch.linspace(-1, 1, n_classes), torch.arange(n_rows) * 7
    logits = states @ classes.T + bias
    expected = dense_nll(
        logits if softcap is None else softcap * (logits / softcap).tanh(),
        torch.eye(n_classes, dtype=torch.float64),
        torch.arange(n_rows),
        targets,
    )
    [expected_gradient] = torch.autograd.grad(expected, states)
    single = states.detach().float().requires_grad_()
    reads = counted_products(monkeypatch)
    loss = multinomial_nll(single, classes.float(), torch.arange(n_rows), targets, bias=bias, softcap=softcap)
    [gradient] = torch.autograd.grad(loss, single)
    assert len(reads) == -(-n_classes // classes_at_once)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-6)


def test_a_state_that_is_sure_of_its_target_has_no_gradient_of_rounding_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", 8)
    classes = torch.eye(8).bfloat16()
    states = (classes[:2] * 200).requires_grad_()
    loss = multinomial_nll(states, classes, torch.arange(2), torch.arange(2))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, states)[0].any()


def counted_products(monkeypatch: pytest.MonkeyPatch) -> list[slice]:
    """The blocks of classes whose logits are computed from now on."""
    blocks: list[slice] = []
    logits = blocked_nll._Inputs.logits

    def counted(inputs: blocked_nll._Inputs, states: Tensor, classes: Tensor, columns: slice) -> Tensor:
        blocks.append(columns)
        return logits(inputs, states, classes, columns)

    monkeypatch.setattr(blocked_nll._Inputs, "logits", counted)
    return blocks
