"""A training step of each objective of both systems against the same backbone, head and optimiser written plainly; and
in bf16 against float32, with a profile of both in the JSON (in the short form where the target was missed): shares
of the time by operation."""

import copy
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.attention import written_out
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig, RSLLMConfig
from cllm4rec.models.rsllm import RSLLM
from cllm4rec.models.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Course, MicroBatches, micro_batches, n_steps
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side
from experiments.benchmarks.padding import SETS, read
from experiments.benchmarks.plain import PlainCLLM4Rec, PlainRSLLM, plain_steps

STEPS = 8  # timed together, spread over an epoch


def our_steps(course: Course, objective: str, steps: list[MicroBatches]) -> None:
    """Steps of the loop."""
    course.net.train()
    for step in steps:
        course.step(objective, step, False)


class InBF16(Accelerator):
    """What `mixed_precision="bf16"` is, which all accelerators of a process would have to share."""

    def autocast(self, autocast_handler: object = None) -> Any:
        return torch.autocast("cpu", torch.bfloat16)


def shares(function: Callable[[], object]) -> dict[str, float]:
    """The largest shares of the CPU time of a function, by operation of PyTorch."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        function()
    times = {one.key: one.self_cpu_time_total for one in found.key_averages()}
    largest = sorted(times, key=times.__getitem__, reverse=True)[:8]
    return {name: round(times[name] / sum(times.values()), 3) for name in largest}


def attention_row() -> Row:
    """Value and gradient of causal attention, 64 examples of 64 tokens, four heads of 64: written out in bf16, and fused."""
    generator = torch.Generator().manual_seed(0)
    single = [torch.randn(64, 4, 64, 64, generator=generator).requires_grad_() for _ in range(3)]
    half = [one.detach().bfloat16().requires_grad_() for one in single]
    visible = torch.ones(64, 64, dtype=torch.bool).tril()

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    all_three: dict[str, Callable[[], object]] = {
        "written out": lambda: written_out(half[0], half[1], half[2], visible, None).sum().backward(),
        "fused, float32": lambda: fused(*single).sum().backward(),
        "fused, bf16": lambda: fused(*half).sum().backward(),
    }
    times = side_by_side(all_three, 5)
    ours, *others = (f"{name} {seconds * 1e3:.0f} ms" for name, seconds in times.items())
    ratio = times["fused, float32"] / times["written out"]
    return Row("gradients of attention alone in bf16, against fused in float32", ours, "; ".join(others), ratio, 1, False)


Systems = Sequence[tuple[CLLM4Rec | RSLLM, Callable[[Any], Any]]]  # and the plain form of each one's network


def systems(backbone: str) -> Systems:
    """CLLM4Rec and RSLLM on one of the backbones made here."""
    rsllm = RSLLM(RSLLMConfig(backbone=backbone))
    return [(CLLM4Rec(CLLM4RecConfig(backbone=backbone, start="random")), PlainCLLM4Rec), (rsllm, PlainRSLLM)]


@dataclass(frozen=True)
class Prepared:
    """Some steps of one objective, and the network in both forms."""

    what: str
    objective: str
    net: Any
    plain: Callable[[Any], Any]
    steps: list[MicroBatches]


def prepared(
    given: Settings, train: Dataset, some: Systems, accelerator: Accelerator | None = None, batch_size: int | None = None
) -> list[Prepared]:
    """Each objective of some systems, by default on a CPU with the batches that they are trained with."""
    accelerator, found, untrained = accelerator or Accelerator(cpu=True), [], TrainConfig(epochs=0)
    for system, plain in some:
        if isinstance(system, RSLLM):
            system.given_first = SASRec().fit(train, None, untrained)
        for stage in system.stages:
            system.fit(train, None, untrained, stage, accelerator=accelerator)
            config = system.config_class.training[stage]
            config = replace(config, batch_size=batch_size or config.batch_size)
            for one in system._objectives(train, stage, config):
                if stage == "finetune" and one.name == "content":
                    continue  # the same as in the first stage
                n = n_steps(one, one.from_epoch, config)
                chosen = sorted({i * n // STEPS for i in range(STEPS)})[:: 4 if given.short else 1]
                steps = micro_batches(one, one.from_epoch, chosen, config, accelerator)
                what = f"{one.name}, {system.name}, {stage}, {system.config.backbone}"
                found.append(Prepared(what, one.name, copy.deepcopy(system.net), plain, list(steps)))
    return found


def main(given: Settings) -> list[Row]:
    rows, repeats, train = [], 2 if given.short else 5, read(given, SETS[0]).train
    for one in prepared(given, train, systems("tiny")):
        plain = one.plain(one.net)
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
        course = Course(one.net, TrainConfig(learning_rate=1e-6), Accelerator(cpu=True), None)
        both: dict[str, Callable[[], object]] = {
            "ours": partial(our_steps, course, one.objective, one.steps),
            "plain": partial(plain_steps, plain, one.objective, one.steps, optimizer),
        }
        times = side_by_side(both, repeats)
        shown = [f"{times[name] / len(one.steps) * 1e3:.0f} ms" for name in ("ours", "plain")]
        rows.append(Row(f"a step of {one.what}", shown[0], f"plain {shown[1]}", times["ours"] / times["plain"], 1.25, True))
    cpu = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    if "avx512_bf16" not in cpu:
        return report("steps", rows, given)
    rows.append(attention_row())
    for backbone, target in (("tiny", 1.3), ("small", 1.8)):
        for one in prepared(given, train, systems(backbone)):
            half: dict[str, Callable[[], object]] = {}
            for name, kind in (("bf16", InBF16), ("fp32", Accelerator)):
                course = Course(copy.deepcopy(one.net), TrainConfig(learning_rate=1e-6), kind(cpu=True), None)
                half[name] = partial(our_steps, course, one.objective, one.steps)
            times = side_by_side(half, repeats)
            shown = [f"{times[name] / len(one.steps) * 1e3:.0f} ms" for name in ("bf16", "fp32")]
            what = f"bf16 against float32, a step of {one.what}"
            row = Row(what, shown[0], shown[1], times["fp32"] / times["bf16"], target, False)
            profiles = {} if row.met and given.short else {name: shares(function) for name, function in half.items()}
            rows.append(replace(row, details=profiles))
    return report("steps", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
