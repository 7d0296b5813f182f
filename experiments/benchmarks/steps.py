"""A training step of each objective against the same backbone, head and optimiser written plainly; and in bf16 against fp32.

The plain step has no padding: the batch's tokens stand in rows of equal length. It looks them up in the same tables, runs the
library's model with its own causal mask, takes the dense cross-entropy of as many states, and steps with the same AdamW.
"""

import copy
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.models.cllm4rec import CLLM4Rec, CLLM4RecNet
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Course, MicroBatches, micro_batches, n_steps
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side
from experiments.benchmarks.padding import SETS, read

STEPS = 8  # timed together, spread over an epoch


class Plain(nn.Module):
    """The same backbone, tables and heads, and AdamW for all of them, written down without any thought of speed."""

    def __init__(self, net: CLLM4RecNet) -> None:
        super().__init__()
        self.backbone, self.n_users = copy.deepcopy(net.backbone), net.n_users
        self.collaborative, self.content = nn.Parameter(net.collaborative.whole()), nn.Parameter(net.content.whole())

    def forward(self, objective: str, step: MicroBatches) -> Tensor:
        """The mean loss of a step whose tokens stand in rows of one length."""
        backbone, table = self.backbone, self.content if objective == "content" else self.collaborative
        tokens = torch.cat([batch["tokens"][batch["mask"]] for batch, _ in step])
        length = max(1, round(len(tokens) / sum(len(batch["mask"]) for batch, _ in step)))
        rows = tokens[: len(tokens) // length * length].view(-1, length)
        words, ids = rows.clamp(max=backbone.n_words - 1), (rows - backbone.n_words).clamp(min=0)
        known = functional.embedding(ids, table) * backbone.id_scale
        embedded = torch.where((rows >= backbone.n_words)[..., None], known, backbone.words[words] * backbone.word_scale)
        states = backbone.model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state.flatten(0, 1)
        counts = [int(batch["rows"].max()) + 1 for batch, _ in step]
        asked = torch.cat([batch["rows"] + sum(counts[:i]) for i, (batch, _) in enumerate(step)])
        targets = torch.cat([batch["targets"] for batch, _ in step])
        states = states[torch.linspace(0, len(states) - 1, sum(counts)).long()]
        classes = backbone.word_head if objective == "content" else table[self.n_users :]
        return -(states @ classes.T).log_softmax(-1)[asked, targets].sum() / len(targets)


def plain_steps(net: Plain, objective: str, steps: list[MicroBatches], optimizer: torch.optim.Optimizer) -> None:
    """Steps of the plain training."""
    net.train()
    for step in steps:
        net(objective, step).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


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


def prepared(given: Settings, name: str, backbone: str) -> list[tuple[str, Any, list[MicroBatches]]]:
    """The network and some steps of each objective of CLLM4Rec."""
    train, found = read(given, name).train, []
    model = CLLM4Rec(CLLM4RecConfig(backbone=backbone, start="random"))
    for stage in model.stages:
        model.fit(train, None, TrainConfig(epochs=0), stage)
        config = model.config_class.training[stage]
        for one in model._objectives(train, stage, config):
            if stage == "finetune" and one.name == "content":
                continue  # the same as in the first stage
            n = n_steps(one, one.from_epoch, config)
            some = sorted({i * n // STEPS for i in range(STEPS)})[:: 2 if given.short else 1]
            steps = micro_batches(one, one.from_epoch, some, config, Accelerator(cpu=True))
            found.append((one.name, copy.deepcopy(model.net), list(steps)))
    return found


def main(given: Settings) -> list[Row]:
    rows, repeats = [], 3 if given.short else 7
    for objective, net, steps in prepared(given, SETS[0], "tiny"):
        other = Plain(net)
        optimizer = torch.optim.AdamW(other.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
        course = Course(net, TrainConfig(learning_rate=1e-6), Accelerator(cpu=True), None)
        both: dict[str, Callable[[], object]] = {
            "ours": partial(our_steps, course, objective, steps),
            "plain": partial(plain_steps, other, objective, steps, optimizer),
        }
        times = side_by_side(both, repeats)
        shown = [f"{times[name] / len(steps) * 1e3:.0f} ms" for name in ("ours", "plain")]
        what = f"a step of {objective}, {SETS[0]}, tiny"
        rows.append(Row(what, shown[0], f"plain {shown[1]}", times["ours"] / times["plain"], 1.25, True))
    cpu = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    for backbone, target in (("tiny", 1.3), ("small", 1.8)) if "avx512_bf16" in cpu else ():
        for objective, net, steps in prepared(given, SETS[0 if given.short else 1], backbone):
            half: dict[str, Callable[[], object]] = {
                name: partial(forward_and_backward, net, objective, steps, name == "bf16") for name in ("bf16", "fp32")
            }
            times = side_by_side(half, repeats)
            shown = [f"{times[name]:.2f} s" for name in ("bf16", "fp32")]
            what = f"bf16 against fp32, gradients of {objective}, {backbone}"
            rows.append(Row(what, shown[0], shown[1], times["fp32"] / times["bf16"], target, False))
    return report("steps", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
