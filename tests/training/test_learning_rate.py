"""The learning rate rises linearly over the warm-up steps and then stays constant."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cllm4rec import pretrain
from cllm4rec.corpora.base import Batch, Corpus
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.objective import Objective
from tests.support.reviewed_books import reviewed_books


class Slope(nn.Module):
    """A loss linear in its parameters, so that each step of Adam has the size of the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.5, -0.5, 0.25], dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
        self.slopes = torch.tensor([3.0, -2.0, 1.0, -4.0], dtype=torch.float64)

    def values(self) -> Tensor:
        return torch.cat([self.first, self.second])

    def forward(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        slopes = self.slopes.to(self.first.device)
        return {objective: (self.values() * slopes).sum() * batch.n_targets}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"first": [self.first], "second": [self.second]}

    def diagnostics(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True, kw_only=True)
class NumbersBatch(Batch):
    """One token and one target an example."""

    @property
    def n_targets(self) -> int:
        return len(self.mask)


class Numbers(Corpus):
    """A corpus of examples without content."""

    def __init__(self, n: int) -> None:
        self.lengths = np.ones(n, dtype=np.int64)

    def selection(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths))

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        return NumbersBatch(mask=torch.ones(len(examples), 1, dtype=torch.bool))


@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_steps_grow_linearly_over_the_warm_up_and_stay_or_fall(
    warmup_steps: int, accumulation: int, schedule: str
) -> None:
    rate, net = 0.01, Slope()
    config = TrainConfig(
        epochs=7,
        batch_size=8,
        accumulation=accumulation,
        learning_rate=rate,
        warmup_steps=warmup_steps,
        patience=99,
        schedule=schedule,
    )
    points = [net.values().detach().cpu().clone()]
    accelerator, objectives = make_accelerator(), [Objective("line", Numbers(8))]  # one step an epoch

    def record_point(record: Any) -> None:
        points.append(net.values().detach().cpu().clone())

    loop.train(net, objectives, config, accelerator, Hooks(on_epoch=record_point))
    steps = torch.stack(points).diff(dim=0)
    rise = [min(1, (step + 1) / max(1, warmup_steps)) for step in range(warmup_steps)]
    rest = torch.linspace(1, 0 if schedule == "linear" else 1, 8 - warmup_steps).tolist()[:-1]
    sizes = rate * torch.tensor([*rise, *rest], dtype=torch.float64)
    torch.testing.assert_close(steps, -sizes[:, None] * net.slopes.sign(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("schedule", "last"), [("constant", (0.1, 0.1, 0.1)), ("linear", (0.1, 0.2 / 3, 0.1 / 3))]
)
def test_the_schedule_counts_steps_of_all_objectives_and_epochs_and_is_the_same_for_all_parameters(
    schedule: str, last: tuple[float, ...]
) -> None:
    rates: list[list[float]] = []

    def record_rates(optimizer: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])

    objectives = [Objective("first", Numbers(6)), Objective("second", Numbers(3), from_epoch=1)]
    config = TrainConfig(
        epochs=2, batch_size=3, learning_rate=0.1, warmup_steps=5, patience=99, schedule=schedule
    )
    hook = register_optimizer_step_pre_hook(record_rates)
    try:
        loop.train(Slope(), objectives, config, make_accelerator())
    finally:
        hook.remove()
    assert len(rates) == 2 + 3 + 3
    expected = (0.02, 0.04, 0.06, 0.08, 0.1, *last)
    np.testing.assert_allclose(rates, [[rate, rate] for rate in expected])


def test_the_learning_rate_of_the_command_is_the_peak_after_its_warm_up(tmp_path: Path) -> None:
    """`pretrain` uses no other learning rate."""
    rates: list[float] = []

    def record_rates(optimizer: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
        rates.extend({group["lr"] for group in optimizer.param_groups})

    reviewed_books().save(tmp_path / "data")
    hook = register_optimizer_step_pre_hook(record_rates)
    try:
        arguments = ["--epochs", "2", "--batch-size", "5", "--learning-rate", "0.004", "--warmup-steps", "4"]
        pretrain.main(["--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "run"), *arguments])
    finally:
        hook.remove()
    np.testing.assert_allclose(rates[:5], [0.001, 0.002, 0.003, 0.004, 0.004])
    assert set(rates[4:]) == {0.004}
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert stages["pretrain"]["training"]["warmup_steps"] == 4
