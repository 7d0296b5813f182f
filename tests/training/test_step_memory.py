"""A step in micro-batches that fit in memory: the same step, whose memory does not grow with the batch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cllm4rec.corpora.base import Batch
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training import loop, memory, step_memory
from cllm4rec.training.batching import micro_batches, n_steps
from cllm4rec.training.checkpointing import checkpointable_layers, checkpointed
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.limits import NO_LIMITS, Limits, TokenLimit
from cllm4rec.training.live_bytes import LiveBytes
from cllm4rec.training.objective import Objective
from cllm4rec.training.resume import ResumeFile, Stopped
from cllm4rec.training.step_memory import StepMemory, measure
from tests.support.backbones import save_backbone
from tests.support.interruption import StopAfter
from tests.support.training import QUICK, small_dataset
from tests.training.test_learning_rate import Numbers, Slope

NAMES = ("content", "collaborative", "recommend", "text", "unified")
FEW_TOKENS = Limits({name: TokenLimit(48, 8) for name in NAMES})
CONFIG = TrainConfig(batch_size=32, warmup_steps=2)


def cpu() -> Accelerator:
    return Accelerator(cpu=True)


def parts(objective: Objective, config: TrainConfig, limits: Limits) -> list[list[tuple[Batch, float]]]:
    """The micro-batches of each step of an objective's first epoch."""
    epoch = objective.from_epoch
    steps = range(n_steps(objective, epoch, config))
    return list(micro_batches(objective, epoch, steps, config, cpu(), limits))


def started(backbone: str = "tiny", **settings: Any) -> tuple[CLLM4Rec, list[Objective]]:
    """A network before training, and the objectives of both stages."""
    settings = {"content_warmup": 0, "content_ratio": 1000.0, "start": "random"} | settings
    model = CLLM4Rec(CLLM4RecConfig(backbone=backbone, **settings))
    model.build(small_dataset().train)
    train = small_dataset().train.train
    content, collaborative = model.objectives(train, "pretrain", CONFIG)
    return model, [content, collaborative, model.objectives(train, "finetune", CONFIG)[-1]]


def gradients(net: Any, name: str, batches: list[tuple[Batch, float]]) -> dict[str, Tensor]:
    """The gradient of a step, by name of a parameter."""
    for batch, weight in batches:
        (torch.stack(list(net(name, batch).values())).sum() * weight).backward()
    found = {name: p.grad.to_dense() for name, p in net.named_parameters() if p.grad is not None}
    for p in net.parameters():
        p.grad = None
    return found


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * max(float(gradient.norm()), 1e-3), name


def peak_of_step(net: Any, name: str, batches: list[tuple[Batch, float]]) -> int:
    """Most bytes held in a step beside the weights."""
    with LiveBytes([*net.parameters(), *net.buffers()]) as live:
        gradients(net, name, batches)
    return live.peak


def test_bytes_are_counted_once_until_they_are_freed() -> None:
    weight = nn.Parameter(torch.zeros(1000))  # 4,000 bytes, which do not count
    with LiveBytes([weight]) as live:
        doubled = weight.detach() * 2
        view = doubled.view(10, 100).T  # of the same storage
        assert (live.live, live.peak) == (4000, 4000)
        exponents = doubled.exp()
        assert live.live == 8000
        del doubled, view
        assert live.live == 4000
        kept = (weight.exp() * exponents).sum()  # autograd keeps the exponential and the other factor
        assert live.live == 8000 + 4
        kept.backward()
        del kept, exponents
        assert live.live == 4000, "the gradient"
    assert live.peak >= 12_000


@pytest.mark.parametrize("number", range(3), ids=["content", "collaborative", "recommend"])
def test_a_step_in_small_parts_has_the_gradient_of_the_whole(number: int) -> None:
    model, objectives = started()
    objective = objectives[number]
    [first, *_], [whole, *_] = parts(objective, CONFIG, FEW_TOKENS), parts(objective, CONFIG, NO_LIMITS)
    assert len(first) > len(whole)
    assert sum(batch.n_targets for batch, _ in first) == sum(batch.n_targets for batch, _ in whole)
    assert all(batch.mask.numel() <= 48 or len(batch.mask) == 1 for batch, _ in first)
    of_parts = gradients(model.net, objective.name, first)
    assert_close(of_parts, gradients(model.net, objective.name, whole))


def test_without_need_a_step_is_computed_as_if_there_were_no_limit() -> None:
    """The built-in backbones, as they were trained before there was a limit."""
    model, objectives = started()
    limits = measure(model.net, objectives, cpu()).limits
    assert not limits.checkpointed
    for objective in objectives:
        assert limits.micro_batches[objective.name].tokens >= 1 << 16
        for limited, free in zip(
            parts(objective, CONFIG, limits), parts(objective, CONFIG, NO_LIMITS), strict=True
        ):
            shapes = [batch.mask.shape for batch, _ in limited]
            assert shapes == [batch.mask.shape for batch, _ in free]


def test_measuring_changes_neither_weights_nor_random_numbers_nor_mode() -> None:
    model, objectives = started()
    before = {name: array.copy() for name, array in model._arrays().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.net.eval()
    measure(model.net, objectives, cpu())
    assert torch.equal(torch.rand(3), expected)
    assert not model.net.training
    assert all(p.grad is None for p in model.net.parameters())
    assert all(np.array_equal(array, before[name]) for name, array in model._arrays().items())


@pytest.mark.parametrize("number", range(3), ids=["content", "collaborative", "recommend"])
def test_the_memory_of_a_step_does_not_grow_with_the_batch(number: int, tmp_path: Path) -> None:
    """Bytes of tensors, all of which are counted. Without a limit they grow."""
    model, objectives = started(str(save_backbone(tmp_path / "model", "llama")))
    objective, limits = objectives[number], Limits({name: TokenLimit(128, 0) for name in NAMES})

    def peak(batch_size: int, limits: Limits) -> int:
        config = replace(CONFIG, batch_size=batch_size)
        return max(peak_of_step(model.net, objective.name, step) for step in parts(objective, config, limits))

    # a step of several micro-batches also holds the words' gradients of the first ones
    assert peak(41, limits) <= 1.1 * peak(10, limits)
    assert peak(41, NO_LIMITS) > 1.5 * peak(10, NO_LIMITS)


@pytest.mark.parametrize("number", range(3), ids=["content", "collaborative", "recommend"])
def test_what_was_measured_is_what_a_larger_micro_batch_holds(number: int, tmp_path: Path) -> None:
    """The cost of a few examples gives that of all 41, never too low."""
    model, objectives = started(str(save_backbone(tmp_path / "model", "llama")))
    objective = objectives[number]
    cost = measure(model.net, objectives, cpu()).costs[objective.name]
    examples = objective.corpus.selection(objective.from_epoch)
    largest = objective.corpus.batch(examples, objective.from_epoch)
    n = largest.mask.numel()
    assert n > 3 * step_memory.FIRST_PROBE
    peak = step_memory.ALLOCATED * peak_of_step(model.net, objective.name, [(largest, 1.0)])
    assert 0.95 * peak <= cost.bytes(n) <= 1.5 * peak


@pytest.mark.parametrize(("architecture", "tune"), [("gpt2", "frozen"), ("gpt2", "full"), ("llama", "full")])
def test_checkpointed_layers_have_the_same_gradients_and_hold_less(
    architecture: str, tune: str, tmp_path: Path
) -> None:
    """Dropout is drawn again as it was where the backbone is tuned, and stays asleep where it is frozen."""
    folder = save_backbone(tmp_path / "model", architecture, dropout=0.3)
    model, (_, collaborative, _) = started(str(folder), tune=tune)
    model.net.train()
    step = parts(collaborative, CONFIG, NO_LIMITS)[0]
    found, peaks = [], []
    for enabled in (False, True):
        with checkpointed(model.net, enabled):
            torch.manual_seed(1)
            found.append(gradients(model.net, "collaborative", step))
            torch.manual_seed(1)
            peaks.append(peak_of_step(model.net, "collaborative", step))
    assert_close(found[1], found[0])
    assert peaks[1] < 0.8 * peaks[0]
    assert all("forward" not in vars(layer) for layer in checkpointable_layers(model.net)), "as before"


def test_layers_are_checkpointed_where_the_longest_example_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less room than it needs: checkpointed. Less than that: refused in a line that says how much."""
    model, objectives = started(str(save_backbone(tmp_path / "model", "llama")))
    needed = max(cost.bytes(cost.longest) for cost in measure(model.net, objectives, cpu()).costs.values())

    def with_room(share: float) -> StepMemory:
        room = step_memory._Room(*[share * needed] * 3, 0)
        monkeypatch.setattr(step_memory, "_room", lambda *_: room)
        return measure(model.net, objectives, cpu())

    assert not with_room(2.5).limits.checkpointed
    found = with_room(0.9)
    assert found.limits.checkpointed
    assert all(cost.bytes(cost.longest) <= 0.9 * needed for cost in found.costs.values())
    with pytest.raises(ValueError, match="not enough memory is free: the longest example of .* needs"):
        with_room(0.01)


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"`memory` 0\.01 is too little: .*; give at least [0-9.]+$"):
        CLLM4Rec().fit_stage(small_dataset().train, "pretrain", QUICK, memory=0.01)


def test_more_memory_allows_larger_micro_batches() -> None:
    model, objectives = started("small")
    held = memory.needed_bytes(torch.device("cpu")) + memory.optimiser_bytes(model.net)
    tokens = []
    for mib in (50, 100, 200):
        found = measure(model.net, objectives, cpu(), (held + mib * 2**20) / 2**30)
        limit = found.limits.micro_batches["collaborative"].tokens
        cost = found.costs["collaborative"]
        assert limit & (limit - 1) == 0, "a power of two"
        assert cost.bytes(limit) <= mib * 2**20
        tokens.append(limit)
    assert tokens[0] < tokens[1] < tokens[2]


def test_processes_agree_on_the_smallest_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Limits({"a": TokenLimit(512, 3), "b": TokenLimit(64, 1)}, True)
    monkeypatch.setattr(step_memory, "gather_object", lambda here: [*here, other])
    agreed = step_memory._agreed(Limits({"a": TokenLimit(256, 3), "b": TokenLimit(128, 1)}))
    assert agreed == Limits({"a": TokenLimit(256, 3), "b": TokenLimit(64, 1)}, True)


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float | None]]:
    """Measurements that find room for few tokens. Yields the `memory` of each."""
    asked: list[float | None] = []

    def found(
        net: Any, objectives: Any, accelerator: Any, memory: float | None, averaged: bool
    ) -> StepMemory:
        asked.append(memory)
        return StepMemory(replace(FEW_TOKENS, memory=memory), {})

    monkeypatch.setattr(loop, "measure", found)
    yield asked


@pytest.mark.parametrize(("stage", "memory"), [("pretrain", None), ("finetune", 2.0)])
def test_a_resumed_run_goes_on_with_its_first_limits(
    stage: str, memory: float | None, few_tokens: list[float | None], tmp_path: Path
) -> None:
    """Bit for bit, however much is free now. Only for another `memory` are the limits found anew."""

    def model() -> CLLM4Rec:
        model = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
        return model if stage == "pretrain" else model.fit_stage(dataset, "pretrain", config)

    dataset, config = small_dataset(), replace(QUICK, epochs=2)
    whole = model().fit_stage(dataset, stage, config)._arrays()
    resume_file, hooks = ResumeFile(tmp_path / "state.safetensors"), Hooks(should_stop=StopAfter(3))
    stopped, resumed = model(), model()
    with pytest.raises(Stopped):
        stopped.fit_stage(dataset, stage, config, hooks, resume_file=resume_file, memory=memory)
    assert resume_file.limits() == replace(FEW_TOKENS, memory=memory)
    few_tokens.clear()
    resumed.fit_stage(dataset, stage, config, resume_file=resume_file, memory=memory)
    assert few_tokens == []
    assert all(np.array_equal(array, whole[name]) for name, array in resumed._arrays().items())
    resumed.fit_stage(dataset, stage, config, resume_file=resume_file, memory=3.0)
    assert few_tokens == [3.0]


def test_both_stages_of_rsllm_train_in_small_parts(few_tokens: list[float | None]) -> None:
    model = RSLLM(RSLLMConfig(title_words=4))
    for stage in model.stages:
        model.fit_stage(small_dataset(), stage, replace(QUICK, epochs=1))
    assert np.isfinite(model.score(np.arange(3), small_dataset())).all()


class OnlyOne(Slope):
    """A network that trains nothing in the objective "nothing"."""

    def forward(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        terms = super().forward(objective, batch)
        return {name: term.detach() if name == "nothing" else term for name, term in terms.items()}


def test_steps_that_would_train_no_weight_are_left_out() -> None:
    """As in RSLLM's first stage on a frozen backbone (tests/models/rsllm/test_training.py)."""
    objectives, records = [Objective("nothing", Numbers(6)), Objective("line", Numbers(6))], []
    config = TrainConfig(epochs=2, batch_size=3)
    loop.train(OnlyOne(), objectives, config, cpu(), Hooks(on_epoch=records.append))
    assert [list(record.losses) for record in records] == [["line"], ["line"]]


def test_the_limit_of_a_container_bounds_what_is_free(tmp_path: Path) -> None:
    """Its limit, minus what it uses, of which cached files can be given back."""
    assert memory._cgroup_bytes(tmp_path) > 2**28, "no limit: all of the machine"
    files = {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 500\ninactive_file 150\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert memory._cgroup_bytes(tmp_path) == 1000 - (700 - 150)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_bytes(tmp_path) > 2**28
