"""On a GPU: training with a backbone of the size of GPT-2 small, scoring with it, and the item loss beside fused kernels.

Model FLOP utilisation counts what a step needs, not what it does: no padding, no gradient of a frozen weight, and of causal
attention the half that is looked at. Rows say "not run" without a GPU, and those of a fused kernel without its library.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import GPT2Config
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec import CLLM4Rec, CLLM4RecNet
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.models.neural import make_accelerator
from cllm4rec.text.tokenizer import train_bpe
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Course, MicroBatches
from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import item_loss, scoring
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side, synchronised
from experiments.benchmarks.padding import SETS, read
from experiments.benchmarks.plain import PlainCLLM4Rec
from experiments.benchmarks.steps import our_steps, prepared

BATCH = 1024  # examples of a step: enough tokens to fill a GPU
TUNINGS = ("frozen", "full")
OBJECTIVES = ("content", "collaborative", "recommend")
N_ITEMS, WIDTHS = 1_000_000, (64, 256)


def save_backbone(folder: Path, train: Dataset, described: GPT2Config) -> str:
    """A language model of that size, not trained, and a tokenizer that read the titles."""
    tokenizer = train_bpe(train.item_texts["title"], vocabulary=min(described.vocab_size, 4096))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(described, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def needed_flops(net: CLLM4RecNet, objective: str, steps: list[MicroBatches]) -> float:
    """Floating-point operations of the values and gradients of some steps, without padding: of a layer's weights two a token
    and weight for the states, two for their gradient, and two for the weight's, if it is trained; of attention, 4 d a pair of
    tokens and a layer for the states and twice that for the gradients; of the softmax two a state, class and dimension for each
    of the logits, the states' gradient and, if it is trained, the classes'."""
    backbone, found = net.backbone, 0.0
    bidirectional = objective == "recommend" and net.config.bidirectional
    width, layers = backbone.width, int(backbone.model.config.num_hidden_layers)
    n_classes = backbone.n_words if objective == "content" else net.collaborative.items.weight.shape[0]
    for batch, _ in [one for step in steps for one in step]:
        lengths = batch["mask"].sum(1).double()
        pairs = lengths.square() if bidirectional else lengths * (lengths + 1) / 2
        found += 2 * (3 if backbone.tuned else 2) * backbone.work * float(lengths.sum())
        found += 3 * 4 * width * layers * float(pairs.sum())
        n_states = int(batch["rows"].max()) + 1
        found += 2 * (3 if backbone.tuned or objective != "content" else 2) * n_states * n_classes * width
    return found


def gemm_rate(size: int, device: torch.device) -> float:
    """FLOP/s of a product of square matrices in bf16."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds = side_by_side({"product": synchronised(lambda: [left @ right for _ in range(10)])}, 5)["product"]
    return 10 * 2 * size**3 / seconds


def training(given: Settings, train: Dataset, backbone: str, tune: str, accelerator: Accelerator, rate: float) -> list[Row]:
    """A row an objective: the utilisation of steps of the loop with the layers compiled, and, beside it, as they are."""
    model = CLLM4Rec(CLLM4RecConfig(backbone=backbone, tune=tune, start="random"))
    rows = []
    for one in prepared(given, train, [(model, PlainCLLM4Rec)], accelerator, BATCH):
        flops, found = needed_flops(one.net, one.objective, one.steps), {}
        tokens = sum(int(batch["mask"].sum()) for step in one.steps for batch, _ in step)
        course = Course(one.net, TrainConfig(learning_rate=1e-6), accelerator, None)
        for form in ("as they are", "compiled"):
            if form == "compiled":
                one.net.backbone.model.base_model.compile(dynamic=True)
            steps = {form: synchronised(partial(our_steps, course, one.objective, one.steps))}
            found[form] = side_by_side(steps, 3)[form]
        shown = f"{tokens / found['compiled']:,.0f} tokens/s"
        details = {form: flops / seconds / rate for form, seconds in found.items()}
        rows.append(
            Row(utilisation(one.objective, tune), shown, f"{rate / 1e12:.0f} TFLOP/s", details["compiled"], 0.4, False, details)
        )
    return rows


def utilisation(objective: str, tune: str) -> str:
    """The question of a row of training."""
    return f"share of the rate of a bf16 product, training, {objective}, GPT-2 small, {tune}"


SCORING = "lists for all users against a bare forward and product: time, GPT-2 small"


def scoring_row(train: Dataset, backbone: str) -> Row:
    """Lists of all users."""
    model, users = scoring.built(train, backbone), np.flatnonzero(np.diff(train.interactions.indptr) > 0)
    return scoring.time_row(SCORING, model, users, train)


def liger(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The loss of Liger Kernel; a state is read once for each of its targets."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(classes, states[rows], targets)
    return loss


def cut_cross_entropy(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The loss of cut-cross-entropy, no gradient left out, in bf16, as it has no gradients in float32; a state is read once
    for each of its targets."""
    from cut_cross_entropy import linear_cross_entropy

    own = states[rows].bfloat16()
    loss: Tensor = linear_cross_entropy(own, classes.bfloat16(), targets, reduction="sum", filter_eps=None)
    return loss


LOSSES: dict[str, tuple[Callable[..., Tensor], str | None]] = {  # and the library that it needs
    "ours": (multinomial_nll, None),
    "Liger": (liger, "liger_kernel"),
    "cut-cross-entropy in bf16": (cut_cross_entropy, "cut_cross_entropy"),
}


def loss_question(name: str, width: int, what: str) -> str:
    """The question of a row of the item loss."""
    return f"item loss of {name}, {N_ITEMS:,} items, d = {width}: {what} against dense"


def loss_rows(name: str, width: int, n_items: int, device: torch.device) -> list[Row]:
    """Difference from dense logits, and the time of both; the memory of one pass in the details."""
    loss, steps, memory = LOSSES[name][0], {}, {}
    for form, function in ((name, loss), ("dense", item_loss.dense)):
        steps[form] = synchronised(item_loss.step(function, n_items, width, device))
        steps[form]()  # whatever is compiled is compiled
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            steps[form]()
            memory[form] = f"{(torch.cuda.max_memory_allocated() - before) / 2**20:,.0f} MiB at most beyond what was there"
    times = side_by_side(steps, 5)
    shown = [f"{times[form] * 1e3:.1f} ms" for form in steps]
    off = item_loss.difference(n_items, width, loss, device)
    return [
        Row(loss_question(name, width, "difference"), "", "", off, 1e-5, True),
        Row(loss_question(name, width, "time"), shown[0], f"dense {shown[1]}", times[name] / times["dense"], 1.2, True, memory),
    ]


def not_run(only: str | None = None) -> list[Row]:
    """The rows without a figure; `only` those of one loss."""
    rows = [Row(utilisation(one, tune), "", "", None, 0.4, False) for tune in TUNINGS for one in OBJECTIVES]
    rows.append(Row(SCORING, "", "", None, 1.15, True))
    losses = [
        Row(loss_question(name, width, what), "", "", None, target, True)
        for name in ([only] if only else LOSSES)
        for width in WIDTHS
        for what, target in (("difference", 1e-5), ("time", 1.2))
    ]
    return losses if only else rows + losses


def main(given: Settings) -> list[Row]:
    if not torch.cuda.is_available():
        return report("gpu", not_run(), given)
    accelerator, rows = make_accelerator(), []
    train, rate = read(given, SETS[0]).train, gemm_rate(8192, accelerator.device)
    with TemporaryDirectory() as folder:
        backbone = save_backbone(Path(folder), train, GPT2Config())
        for tune in TUNINGS:
            rows += training(given, train, backbone, tune, accelerator, rate)
        rows.append(scoring_row(train, backbone))
    for name, (_, library) in LOSSES.items():
        if library is not None and importlib.util.find_spec(library) is None:
            rows += not_run(name)
            continue
        try:
            rows += [row for width in WIDTHS for row in loss_rows(name, width, N_ITEMS, accelerator.device)]
        except Exception as error:
            if library is None:
                raise
            rows += [replace(row, ours="failed", details={"error": str(error)}) for row in not_run(name)]  # the others are kept
    return report("gpu", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
