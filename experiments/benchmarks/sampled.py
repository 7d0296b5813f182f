"""Training with a sampled softmax over 10,000,000 items, d = 32: peak memory and time of a step.

    python -m experiments.benchmarks.sampled --output bench

Data: generated histories of 512 users. The content table is frozen and mapped from a file; the
collaborative table is trained, with its moments and best weights.

Prints the peak memory and the time of a step. Comparator: a step with a tenth of the items.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from cllm4rec.corpora.prompts import OF_CLLM4REC, training_texts
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.training.batching import MicroBatches
from cllm4rec.training.loop import TrainingRun
from experiments.benchmarks.backbones import save_backbone
from experiments.benchmarks.generated import N_BATCHES, collaborative_run, train_epochs
from experiments.benchmarks.measurement import extra_memory, side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.benchmarks.steps import loop_steps
from experiments.commands import ends_in_one_line

WIDTH, N_USERS, N_SAMPLED = 32, 100_000, 8192
BACKBONE = GPT2Config(
    vocab_size=1024,
    n_embd=WIDTH,
    n_layer=2,
    n_head=2,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=None,
    eos_token_id=0,
)


def save_content(folder: Path, n_items: int) -> Path:
    """A file with a content table of items."""
    path = folder / f"{n_items}.safetensors"
    save_file({"items": torch.zeros(n_items, WIDTH)}, path)
    return path


def training_run(n_items: int, backbone: str, content: Path) -> tuple[TrainingRun, list[MicroBatches]]:
    """A training run and its batches, with the content table mapped from its file."""

    def initialise(net: CLLM4RecNet) -> None:
        for weight in net.collaborative.parameters():
            torch.nn.init.uniform_(weight, -0.02, 0.02)
        net.content.requires_grad_(False)
        net.content.users.weight.zero_()
        net.content.items.weight.data = load_file(content)["items"]

    config = CLLM4RecConfig(backbone=backbone, tune="full", sampled=N_SAMPLED, content_ratio=0.0)
    return collaborative_run(config, N_USERS, n_items, initialise)


def build_and_train(n_items: int, backbone: str, content: Path) -> None:
    """Build the network and train two epochs."""
    train_epochs(*training_run(n_items, backbone, content))


def prepare(n_items: int, backbone: str, content: Path) -> Callable[[], object]:
    """`build_and_train`, not yet called."""
    return partial(build_and_train, n_items, backbone, content)


def timed_steps(n_items: int, backbone: str, content: Path) -> Callable[[], object]:
    """A function that makes `N_BATCHES` steps."""
    run, batches = training_run(n_items, backbone, content)
    return partial(loop_steps, run, "collaborative", batches)


def main(settings: Settings) -> list[Row]:
    n_items = 1_000_000 if settings.short else 10_000_000
    n_few = n_items // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = save_backbone(folder / "backbone", training_texts(OF_CLLM4REC, {}), BACKBONE)
        content, few_content = (save_content(folder, n) for n in (n_items, n_few))
        memory = extra_memory(prepare, n_items, backbone, content, threads=settings.threads) / 1024
        functions = {
            "many": timed_steps(n_items, backbone, content),
            "few": timed_steps(n_few, backbone, few_content),
        }
        times = side_by_side(functions, 3 if settings.short else 5)
    shown = {name: f"{seconds / N_BATCHES * 1e3:.0f} ms a step" for name, seconds in times.items()}
    tables = 5 * 4 * n_items * WIDTH / 2**30
    comparator = f"{shown['few']} with {n_few:,} items; the tables alone are {tables:.1f} GiB"
    question = f"GiB, training with {n_items:,} items, d = {WIDTH}, sampled softmax"
    target = 8.0 * n_items / 10_000_000
    measured = f"{memory:.1f} GiB, {shown['many']}"
    return report("sampled", [Row(question, measured, comparator, memory, target, True)], settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
