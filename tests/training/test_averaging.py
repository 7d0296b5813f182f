"""Moving averages of the weights: their values, what is validated and saved, and resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training import loop
from cllm4rec.training.averaging import AveragedWeights
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.resume import ResumeFile, Stopped
from tests.support.backbones import small_dataset

CONFIG = TrainConfig(epochs=3, batch_size=16, warmup_steps=2, learning_rate=1e-2, averaging=0.8)


def test_averages_follow_the_weights() -> None:
    """decay .5; (1 + t) / (10 + t) is .1 and 2 / 11 in the first steps, so that these are the decays."""
    weight = torch.tensor([1.0])
    averaged = AveragedWeights(0.15, {"w": weight, "rows": torch.zeros(2)}, {"rows"})
    for step, value in enumerate([2.0, 4.0]):
        weight.fill_(value)
        averaged.update(step)
    first = 0.1 * 1 + 0.9 * 2
    torch.testing.assert_close(averaged.averages, {"w": torch.tensor([0.15 * first + 0.85 * 4])})
    with averaged.in_place():
        torch.testing.assert_close(weight, torch.tensor([0.15 * first + 0.85 * 4]))
    assert float(weight) == 4.0


def fitted(config: TrainConfig, **settings: int) -> tuple[CLLM4Rec, list[dict[str, Tensor]], list[Tensor]]:
    """A fit of one stage; the trained weights after each step, and the table whenever one is kept."""
    model, steps, kept = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0, **settings)), [], []
    step = loop.TrainingRun.step

    def recorded(run: loop.TrainingRun, *arguments: object) -> None:
        step(run, *arguments)  # type: ignore[arg-type]
        steps.append({name: weight.detach().clone() for name, weight in run.weights.items()})

    hooks = Hooks(on_best=lambda: kept.append(model.net.collaborative.whole().clone()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingRun, "step", recorded)
        model.fit_stage(small_dataset().train, "pretrain", config, hooks)
    return model, steps, kept


def test_averages_are_saved_and_training_does_not_depend_on_them() -> None:
    model, steps, kept = fitted(CONFIG)
    plain, plain_steps, _ = fitted(replace(CONFIG, averaging=0.0))
    for one, other in zip(steps, plain_steps, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    name = "collaborative.items.weight"
    initial = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
    initial.fit_stage(small_dataset().train, "pretrain", replace(CONFIG, epochs=0))
    average = dict(initial.net.named_parameters())[name].detach().double()
    for step, weights in enumerate(steps):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights[name].double()
    served = dict(model.net.named_parameters())[name].detach()
    torch.testing.assert_close(served.double(), average, rtol=1e-5, atol=1e-7)
    assert torch.equal(model.net.collaborative.whole(), kept[-1])
    assert not torch.equal(served, dict(plain.net.named_parameters())[name])


def test_tables_of_a_sampled_softmax_are_not_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, averaged = loop.TrainingRun.keep_best_weights, set()

    def recorded(run: loop.TrainingRun, hooks: Hooks) -> None:
        averaged.update(run.averaged.averages)
        keep(run, hooks)

    monkeypatch.setattr(loop.TrainingRun, "keep_best_weights", recorded)
    model, *_ = fitted(replace(CONFIG, epochs=1), sampled=8)
    tables = {
        name for name, _ in model.net.named_parameters() if name.startswith(("collaborative", "content"))
    }
    assert len(tables) == 4
    assert averaged == {name for name, _ in model.net.named_parameters()} - tables


@pytest.mark.parametrize("n_steps", [1, 4])
def test_resuming_goes_on_with_the_averages(n_steps: int, tmp_path: Path) -> None:
    resume_file, seen = ResumeFile(tmp_path / "state.safetensors"), 0

    def should_stop() -> bool:
        nonlocal seen
        seen += 1
        return seen == n_steps + 1

    whole, *_ = fitted(CONFIG)
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
    with pytest.raises(Stopped):
        train = small_dataset().train
        model.fit_stage(train, "pretrain", CONFIG, Hooks(should_stop=should_stop), resume_file=resume_file)
    resumed = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
    resumed.fit_stage(small_dataset().train, "pretrain", CONFIG, resume_file=resume_file)
    for (name, one), other in zip(whole.net.named_parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(one, other), name
