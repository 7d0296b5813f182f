"""A training step of each objective of both systems against the same backbone, head and optimiser written plainly; and
gradients in bf16 against float32, with a profile of both in the JSON: shares of the time by operation."""

import copy
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig, RSLLMConfig
from cllm4rec.models.neural import NeuralRecommender
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


def forward_and_backward(net: Any, objective: str, steps: list[MicroBatches], bf16: bool) -> None:
    """Gradients of all steps, as the loop computes them."""
    net.train()
    for batch, _ in [one for step in steps for one in step]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.stack(list(net(objective, batch).values())).sum()
        loss.backward()
    net.zero_grad()


def shares(function: Callable[[], object]) -> dict[str, float]:
    """The largest shares of the CPU time of a function, by operation of PyTorch."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        function()
    times = {one.key: one.self_cpu_time_total for one in found.key_averages()}
    largest = sorted(times, key=times.__getitem__, reverse=True)[:8]
    return {name: round(times[name] / sum(times.values()), 3) for name in largest}


def attention_gradient(dtype: torch.dtype) -> Callable[[], object]:
    """Value and gradient of causal attention: 64 examples of 64 tokens, four heads of 64."""
    query, key, value = (torch.randn(64, 4, 64, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    return lambda: functional.scaled_dot_product_attention(query, key, value, is_causal=True).sum().backward()


def systems(backbone: str) -> list[tuple[NeuralRecommender, Any]]:
    """Both, and the plain form of each one's network."""
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


def prepared(given: Settings, backbone: str) -> list[Prepared]:
    """Each objective of both systems, on Amazon Beauty."""
    train, found, untrained = read(given, SETS[0]).train, [], TrainConfig(epochs=0)
    for system, plain in systems(backbone):
        if isinstance(system, RSLLM):
            system.given_first = SASRec().fit(train, None, untrained)
        for stage in system.stages:
            system.fit(train, None, untrained, stage)
            config = system.config_class.training[stage]
            for one in system._objectives(train, stage, config):
                if stage == "finetune" and one.name == "content":
                    continue  # the same as in the first stage
                n = n_steps(one, one.from_epoch, config)
                some = sorted({i * n // STEPS for i in range(STEPS)})[:: 4 if given.short else 1]
                steps = micro_batches(one, one.from_epoch, some, config, Accelerator(cpu=True))
                what = f"{one.name}, {system.name}, {stage}, {backbone}"
                found.append(Prepared(what, one.name, copy.deepcopy(system.net), plain, list(steps)))
    return found


def main(given: Settings) -> list[Row]:
    rows, repeats = [], 2 if given.short else 3
    for one in prepared(given, "tiny"):
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
    times = side_by_side({name: attention_gradient(getattr(torch, name)) for name in ("bfloat16", "float32")}, 5)
    shown = [f"{times[name] * 1e3:.1f} ms" for name in ("float32", "bfloat16")]
    what = "float32 against bf16, gradients of attention alone (why it stays in float32)"
    rows.append(Row(what, shown[0], shown[1], times["bfloat16"] / times["float32"], 1, False))
    for backbone, target in (("tiny", 1.3), ("small", 1.8)):
        for one in prepared(given, backbone):
            half: dict[str, Callable[[], object]] = {
                name: partial(forward_and_backward, one.net, one.objective, one.steps, name == "bf16")
                for name in ("bf16", "fp32")
            }
            times = side_by_side(half, repeats)
            shown = [f"{times[name]:.2f} s" for name in ("bf16", "fp32")]
            what = f"bf16 against float32, gradients of {one.what}"
            profiles = {name: shares(function) for name, function in half.items()}
            rows.append(Row(what, shown[0], shown[1], times["fp32"] / times["bf16"], target, False, profiles))
    return report("steps", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
