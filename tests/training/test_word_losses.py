"""The word softmax of language models: biases, soft caps, and large frozen tables in bfloat16."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cllm4rec.training import blocked_nll
from cllm4rec.training.losses import multinomial_nll

N_ROWS, N_CLASSES, WIDTH = 9, 11, 5


def example() -> tuple[list[Tensor], Tensor, Tensor]:
    """States (R, d), classes (C, d) and bias (C,) in float64; the row and the class of each target."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(N_ROWS, WIDTH), (N_CLASSES, WIDTH), (N_CLASSES,)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return inputs, torch.tensor([0, 0, 1, 3, 4, 4, 6, 7]), torch.tensor([2, 10, 0, 7, 1, 1, 3, 4])


@pytest.mark.parametrize("softcap", [None, 0.7, 30.0])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("fewest_rows", [1, N_ROWS], ids=["some rows at once", "some classes at once"])
@pytest.mark.parametrize("rows_at_once", [N_ROWS, 3, 1])
def test_a_bias_and_a_soft_cap_equal_a_dense_float64_reference(
    rows_at_once: int,
    fewest_rows: int,
    with_bias: bool,
    softcap: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocked_nll, "LOGITS_AT_ONCE", rows_at_once * N_CLASSES)
    monkeypatch.setattr(blocked_nll, "FEWEST_ROWS", fewest_rows)
    exact, rows, targets = example()
    single = [tensor.float().requires_grad_() for tensor in exact]
    excluded = {"excluded_rows": torch.tensor([0, 1, 6]), "excluded": torch.tensor([3, 5, 0])}
    states, classes, bias = (tensor.requires_grad_() for tensor in exact)
    logits = states @ classes.T + (bias if with_bias else 0.0)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    left_out = torch.zeros(N_ROWS, N_CLASSES, dtype=torch.bool)
    left_out[excluded["excluded_rows"], excluded["excluded"]] = True
    expected = -logits.masked_fill(left_out, -torch.inf).log_softmax(1)[rows, targets].sum()
    (2.5 * expected).backward()
    loss = multinomial_nll(
        single[0],
        single[1],
        rows,
        targets,
        bias=single[2] if with_bias else None,
        softcap=softcap,
        **excluded,
    )
    (2.5 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for found, reference in zip(single[: 2 + with_bias], exact, strict=False):
        torch.testing.assert_close(found.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


def test_a_soft_cap_and_a_bias_by_hand() -> None:
    """Products 100 and 0, bias 0 and 2, cap 1: logits 1 and tanh 2 = 0.96403."""
    loss = multinomial_nll(
        torch.tensor([[10.0]]),
        torch.tensor([[10.0], [0.0]]),
        torch.tensor([0]),
        torch.tensor([0]),
        bias=torch.tensor([0.0, 2.0]),
        softcap=1.0,
    )
    assert loss.item() == pytest.approx(0.675323, abs=1e-5)  # log(1 + exp(0.96403 - 1))


class LargestFloat32(TorchDispatchMode):
    """Numbers of the largest float32 tensor that an operation makes."""

    n_numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self.n_numbers = max(self.n_numbers, tensor.numel())
        return made


@pytest.mark.parametrize("n_classes", [20_000, 200_000], ids=["some rows at once", "some classes at once"])
def test_a_frozen_bfloat16_table_is_never_copied_to_float32(n_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(n_classes, 128, generator=generator).bfloat16()
    states = (torch.randn(100, 128, generator=generator) / 11).bfloat16().requires_grad_()
    rows, targets = torch.arange(100), torch.randint(n_classes, (100,), generator=generator)
    with LargestFloat32() as largest:
        loss = multinomial_nll(states, classes, rows, targets)
        loss.backward()
    assert largest.n_numbers <= blocked_nll.LOGITS_AT_ONCE < classes.numel()
    logits = states.detach().double() @ classes.double().T
    expected = -logits.log_softmax(1)[rows, targets].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert states.grad is not None
    assert states.grad.dtype == torch.bfloat16
