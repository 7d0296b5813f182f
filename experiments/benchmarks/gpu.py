"""On a GPU: training with a backbone of GPT-2 small's size, scoring with it, and the item loss.

    python -m experiments.benchmarks.gpu --output bench

Data: Amazon Beauty, as `experiments.recipes` writes it (--datasets). The item loss has random states
and items.

Prints the utilisation of training steps, the time of lists, and the difference and time of item losses.
Comparators: the rate of a bf16 product; a bare forward and product; dense logits. Utilisation counts the
operations that a step needs: no padding, no gradient of a frozen weight, and the visible half of causal
attention. Rows say "not run" without a GPU, and rows of a fused kernel without its library.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import GPT2Config

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.batching import MicroBatches
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import item_loss, scoring
from experiments.benchmarks.backbones import save_backbone
from experiments.benchmarks.datasets import BEAUTY, read_dataset
from experiments.benchmarks.measurement import side_by_side, synchronised
from experiments.benchmarks.plain import PlainCLLM4Rec, n_states
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.benchmarks.steps import LEARNING_RATE, loop_steps, prepared
from experiments.commands import ends_in_one_line

BATCH = 1024  # examples of a step: enough tokens to fill a GPU
TUNINGS = ("frozen", "full")
OBJECTIVES = ("content", "collaborative", "recommend")
N_ITEMS, WIDTHS = 1_000_000, (64, 256)
SCORING = "lists for all users against a bare forward and product: time, GPT-2 small"


def utilisation(objective: str, tune: str) -> str:
    """The question of a row of training."""
    return f"share of the rate of a bf16 product, training, {objective}, GPT-2 small, {tune}"


def loss_question(name: str, width: int, figure: str) -> str:
    """The question of a row of the item loss."""
    return f"item loss of {name}, {N_ITEMS:,} items, d = {width}: {figure} against dense"


def needed_flops(net: CLLM4RecNet, objective: str, steps: list[MicroBatches]) -> float:
    """Floating-point operations of the values and gradients of steps, without padding.

    Layers: 2 a token and weight for the states, 2 for their gradient and, if trained, 2 for the weight's.
    Attention: 4 d a pair of tokens and a layer for the states, and twice that for the gradients.
    Softmax: 2 a state, class and dimension for the logits, for the states' gradient and, if trained, for the
    classes' gradient.
    """
    backbone, flops = net.backbone, 0.0
    bidirectional = objective == "recommend" and net.config.bidirectional
    width, layers = backbone.width, int(backbone.model.config.num_hidden_layers)
    n_classes = backbone.n_text_tokens if objective == "content" else net.collaborative.items.weight.shape[0]
    trained_classes = backbone.tuned or objective != "content"
    for batch, _ in [micro_batch for step in steps for micro_batch in step]:
        lengths = batch.mask.sum(1).double()
        pairs = lengths.square() if bidirectional else lengths * (lengths + 1) / 2
        flops += 2 * (3 if backbone.tuned else 2) * backbone.multiplications_per_token * float(lengths.sum())
        flops += 3 * 4 * width * layers * float(pairs.sum())
        flops += 2 * (3 if trained_classes else 2) * n_states(batch) * n_classes * width
    return flops


def gemm_rate(size: int, device: torch.device) -> float:
    """FLOP/s of a product of square matrices in bf16."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds = side_by_side({"product": synchronised(lambda: [left @ right for _ in range(10)])}, 5)["product"]
    return 10 * 2 * size**3 / seconds


def training(
    settings: Settings, train: Dataset, backbone: str, tune: str, accelerator: Accelerator, rate: float
) -> list[Row]:
    """A row an objective: utilisation of steps with compiled layers; the details also have eager layers."""
    model = CLLM4Rec(CLLM4RecConfig(backbone=backbone, tune=tune, start="random", item_text="none"))
    rows = []
    for prepared_steps in prepared(settings, train, [(model, PlainCLLM4Rec)], accelerator, BATCH):
        net, objective, steps = prepared_steps.net, prepared_steps.objective, prepared_steps.steps
        n_tokens = sum(batch.n_tokens for step in steps for batch, _ in step)
        run = TrainingRun(net, TrainConfig(learning_rate=LEARNING_RATE), accelerator, None)
        seconds: dict[str, float] = {}
        for form in ("eager", "compiled"):
            if form == "compiled":
                for block in net.backbone.model.base_model.h:  # alike, so that they are compiled once
                    block.compile(dynamic=True)
            function = synchronised(partial(loop_steps, run, objective, steps))
            seconds |= side_by_side({form: function}, 3)
        flops = needed_flops(net, objective, steps)
        shares = {form: flops / of_form / rate for form, of_form in seconds.items()}
        measured, comparator = f"{n_tokens / seconds['compiled']:,.0f} tokens/s", f"{rate / 1e12:.0f} TFLOP/s"
        question = utilisation(objective, tune)
        rows.append(Row(question, measured, comparator, shares["compiled"], 0.4, False, shares))
    return rows


def scoring_row(train: Dataset, backbone: str) -> Row:
    """Lists of all users."""
    return scoring.time_row(SCORING, scoring.build(train, backbone), scoring.users_of(train), train)


def liger(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The loss of Liger Kernel; each state is repeated for each of its targets."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(classes, states[rows], targets)
    return loss


def cut_cross_entropy(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The loss of cut-cross-entropy, with all gradients; each state is repeated for each of its targets.

    In bf16: the library has no gradients in float32.
    """
    from cut_cross_entropy import linear_cross_entropy

    repeated = states[rows].bfloat16()
    loss: Tensor = linear_cross_entropy(
        repeated, classes.bfloat16(), targets, reduction="sum", filter_eps=None
    )
    return loss


LOSSES: dict[str, tuple[Callable[..., Tensor], str | None]] = {  # name -> loss, module that it needs
    "cllm4rec": (multinomial_nll, None),
    "Liger": (liger, "liger_kernel"),
    "cut-cross-entropy in bf16": (cut_cross_entropy, "cut_cross_entropy"),
}


def loss_rows(name: str, width: int, n_items: int, device: torch.device) -> list[Row]:
    """Difference from dense logits, and the time of both; the details have the memory of a pass on a GPU."""
    loss, steps, memory = LOSSES[name][0], {}, {}
    for form, function in ((name, loss), ("dense", item_loss.dense)):
        steps[form] = synchronised(item_loss.step(function, n_items, width, device))
        steps[form]()  # compiles kernels
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            steps[form]()
            extra = (torch.cuda.max_memory_allocated() - before) / 2**20
            memory[form] = f"{extra:,.0f} MiB at most beyond what was allocated before"
    times = side_by_side(steps, 5)
    milliseconds, dense = (f"{times[form] * 1e3:.1f} ms" for form in steps)
    difference = item_loss.difference(n_items, width, loss, device)
    ratio = times[name] / times["dense"]
    return [
        Row(loss_question(name, width, "difference"), "", "", difference, 1e-5, True),
        Row(loss_question(name, width, "time"), milliseconds, f"dense {dense}", ratio, 1.2, True, memory),
    ]


def losses_not_run(name: str) -> list[Row]:
    """The rows of a loss without figures."""
    targets = (("difference", 1e-5), ("time", 1.2))
    return [
        Row(loss_question(name, width, figure), "", "", None, target, True)
        for width in WIDTHS
        for figure, target in targets
    ]


def not_run() -> list[Row]:
    """All rows without figures."""
    rows = [Row(utilisation(name, tune), "", "", None, 0.4, False) for tune in TUNINGS for name in OBJECTIVES]
    rows.append(Row(SCORING, "", "", None, 1.15, True))
    return rows + [row for name in LOSSES for row in losses_not_run(name)]


def all_loss_rows(device: torch.device) -> list[Row]:
    """Rows of every loss; those of a library that is missing or fails have no figures."""
    rows = []
    for name, (_, module) in LOSSES.items():
        if module is not None and importlib.util.find_spec(module) is None:
            rows += losses_not_run(name)
            continue
        try:
            rows += [row for width in WIDTHS for row in loss_rows(name, width, N_ITEMS, device)]
        except Exception as error:
            if module is None:
                raise
            details = {"error": str(error)}
            rows += [replace(row, measured="failed", details=details) for row in losses_not_run(name)]
    return rows


def main(settings: Settings) -> list[Row]:
    if not torch.cuda.is_available():
        return report("gpu", not_run(), settings)
    accelerator, rows = make_accelerator(), []
    train, rate = read_dataset(BEAUTY, settings).train, gemm_rate(8192, accelerator.device)
    with TemporaryDirectory() as folder:
        backbone = save_backbone(Path(folder), train.item_texts["title"], GPT2Config())
        for tune in TUNINGS:
            rows += training(settings, train, backbone, tune, accelerator, rate)
        rows.append(scoring_row(train, backbone))
    return report("gpu", rows + all_loss_rows(accelerator.device), settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
