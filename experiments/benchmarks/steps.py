"""A training step of each objective of CLLM4Rec and RSLLM, in float32 and in bf16.

    python -m experiments.benchmarks.steps --output bench

Data: Amazon Beauty, as `experiments.recipes` writes it (--datasets).

Prints the milliseconds of a step. Comparator in float32: the same backbone, head and optimiser in plain
PyTorch (`plain`). On processors with bf16 arithmetic also bf16 against float32, and the attention alone; the
JSON file then holds profiles, in the short form only where the target is missed.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.attention import eager_attention
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.batching import MicroBatches, micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import TrainingRun
from experiments.benchmarks.datasets import BEAUTY, read_dataset
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.objectives import stage_objectives
from experiments.benchmarks.plain import PlainCLLM4Rec, PlainRSLLM, plain_steps
from experiments.benchmarks.results import Row, Settings, parse_settings, processor_description, report
from experiments.commands import ends_in_one_line

STEPS = 8  # timed together, spread over an epoch
LEARNING_RATE = 1e-6
Systems = Sequence[tuple[CLLM4Rec | RSLLM, Callable[[Any], Any]]]  # with the plain form of each network


@dataclass(frozen=True)
class PreparedSteps:
    """A few steps of an objective.

    Attributes:
        description: objective, system, stage and backbone.
        objective: its name.
        net: the network.
        plain: gives the plain form of the network.
        steps: micro-batches of each step.
    """

    description: str
    objective: str
    net: Any
    plain: Callable[[Any], Any]
    steps: list[MicroBatches]


class BF16Accelerator(Accelerator):
    """Mixed precision bf16 for one training run; Accelerate's own setting holds for the whole process."""

    def autocast(self, autocast_handler: object = None) -> Any:
        return torch.autocast("cpu", torch.bfloat16)


def loop_steps(run: TrainingRun, objective: str, steps: list[MicroBatches]) -> None:
    """Steps of the training loop."""
    run.net.train()
    for step in steps:
        run.step(objective, step, False)


def systems(backbone: str) -> Systems:
    """CLLM4Rec and RSLLM on a built-in backbone."""
    cllm4rec = CLLM4Rec(CLLM4RecConfig(backbone=backbone, start="random", item_text="none"))
    return [(cllm4rec, PlainCLLM4Rec), (RSLLM(RSLLMConfig(backbone=backbone)), PlainRSLLM)]


def prepared(
    settings: Settings,
    train: Dataset,
    pairs: Systems,
    accelerator: Accelerator | None = None,
    batch_size: int | None = None,
) -> list[PreparedSteps]:
    """Steps of each objective, spread over its first epoch.

    Args:
        settings: in the short form two steps each, else `STEPS`.
        train: the training events.
        pairs: the systems.
        accelerator: device of the networks; a CPU if not given.
        batch_size: examples of a step; that of the stage's default training if not given.
    """
    accelerator, groups = accelerator or Accelerator(cpu=True), []
    for system, plain in pairs:
        for stage in system.stages:
            config = system.config.default_training[stage]
            config = replace(config, batch_size=batch_size or config.batch_size)
            for objective in stage_objectives(system, train, stage, accelerator):
                if stage == "finetune" and objective.name == "content":
                    continue  # the same as in pretraining
                epoch = objective.from_epoch
                n = n_steps(objective, epoch, config)
                chosen = sorted({i * n // STEPS for i in range(STEPS)})[:: 4 if settings.short else 1]
                steps = list(micro_batches(objective, epoch, chosen, config, accelerator))
                description = f"{objective.name}, {system.name}, {stage}, {system.config.backbone}"
                net = copy.deepcopy(system.net)
                groups.append(PreparedSteps(description, objective.name, net, plain, steps))
    return groups


def profile_shares(function: Callable[[], object]) -> dict[str, float]:
    """The eight largest shares of a function's CPU time, by operation of PyTorch."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        function()
    times = {operation.key: operation.self_cpu_time_total for operation in profiled.key_averages()}
    largest = sorted(times, key=times.__getitem__, reverse=True)[:8]
    return {name: round(times[name] / sum(times.values()), 3) for name in largest}


def attention_row() -> Row:
    """Value and gradient of causal attention, 64 examples of 64 tokens, four heads of 64."""
    generator = torch.Generator().manual_seed(0)
    single = [torch.randn(64, 4, 64, 64, generator=generator).requires_grad_() for _ in range(3)]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in single]
    visible = torch.ones(64, 64, dtype=torch.bool).tril()

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    forms: dict[str, Callable[[], object]] = {
        "eager, bf16": lambda: eager_attention(half[0], half[1], half[2], visible, None).sum().backward(),
        "fused, float32": lambda: fused(*single).sum().backward(),
        "fused, bf16": lambda: fused(*half).sum().backward(),
    }
    times = side_by_side(forms, 5)
    measured, *comparators = (f"{name} {seconds * 1e3:.0f} ms" for name, seconds in times.items())
    ratio = times["fused, float32"] / times["eager, bf16"]
    question = "gradients of attention alone in bf16, against fused in float32"
    return Row(question, measured, "; ".join(comparators), ratio, 1, False)


def plain_row(prepared_steps: PreparedSteps, repeats: int) -> Row:
    """Steps of the loop against plain steps."""
    net, objective, steps = prepared_steps.net, prepared_steps.objective, prepared_steps.steps
    plain = prepared_steps.plain(net)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    config = TrainConfig(learning_rate=LEARNING_RATE)
    with TrainingRun(net, config, Accelerator(cpu=True), None) as run:
        functions: dict[str, Callable[[], object]] = {
            "loop": partial(loop_steps, run, objective, steps),
            "plain": partial(plain_steps, plain, objective, steps, optimizer),
        }
        times = side_by_side(functions, repeats)
    loop, other = (f"{times[name] / len(steps) * 1e3:.0f} ms" for name in ("loop", "plain"))
    question = f"a step of {prepared_steps.description}"
    return Row(question, loop, f"plain {other}", times["loop"] / times["plain"], 1.25, True)


def bf16_row(prepared_steps: PreparedSteps, repeats: int, target: float, short: bool) -> Row:
    """Steps in bf16 against steps in float32, with profiles."""
    objective, steps = prepared_steps.objective, prepared_steps.steps
    functions: dict[str, Callable[[], object]] = {}
    for name, accelerator in (("bf16", BF16Accelerator), ("fp32", Accelerator)):
        net, config = copy.deepcopy(prepared_steps.net), TrainConfig(learning_rate=LEARNING_RATE)
        run = TrainingRun(net, config, accelerator(cpu=True), None)
        functions[name] = partial(loop_steps, run, objective, steps)
    times = side_by_side(functions, repeats)
    half, single = (f"{times[name] / len(steps) * 1e3:.0f} ms" for name in ("bf16", "fp32"))
    question = f"bf16 against float32, a step of {prepared_steps.description}"
    row = Row(question, half, single, times["fp32"] / times["bf16"], target, False)
    if row.met and short:
        return row
    return replace(row, details={name: profile_shares(function) for name, function in functions.items()})


def main(settings: Settings) -> list[Row]:
    repeats, train = 2 if settings.short else 5, read_dataset(BEAUTY, settings).train
    rows = [plain_row(steps, repeats) for steps in prepared(settings, train, systems("tiny"))]
    if "avx512_bf16" in processor_description():
        rows.append(attention_row())
        for backbone, target in (("tiny", 1.3), ("small", 1.8)):
            pairs = systems(backbone)
            rows += [
                bf16_row(steps, repeats, target, settings.short) for steps in prepared(settings, train, pairs)
            ]
    return report("steps", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
