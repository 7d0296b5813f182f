"""Training with a sampled softmax over 10,000,000 items, d = 32: peak memory, and beside it a step with a tenth of the items.

The content table is frozen and mapped from a file; the collaborative one is trained, with its moments and the best weights.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from cllm4rec.data.interactions import Interactions
from cllm4rec.models.backbone import build_backbone
from cllm4rec.models.cllm4rec import CLLM4RecNet
from cllm4rec.models.configs import BUILT_IN, CLLM4RecConfig
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions
from cllm4rec.text.prompts import OF_CLLM4REC, training_texts
from cllm4rec.text.tokenizer import ExtendedTokenizer
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Course, MicroBatches
from experiments.benchmarks.common import Row, Settings, extra_memory, report, settings, side_by_side
from experiments.benchmarks.steps import our_steps

WIDTH, N_USERS, A_HISTORY, BATCHES, DRAWS = 32, 100_000, 20, 8, 8192
CONFIG = CLLM4RecConfig(sampled=DRAWS, content_ratio=0.0)


def mapped(folder: Path, n_items: int) -> Path:
    """A file with a table of items."""
    path = folder / f"{n_items}.safetensors"
    if not path.is_file():
        save_file({"items": torch.zeros(n_items, WIDTH)}, path)
    return path


def course(n_items: int, content: Path) -> tuple[Course, list[MicroBatches]]:
    """A training under way, and some batches of items spread over all."""
    BUILT_IN["narrow"] = (2, WIDTH)
    backbone, words = build_backbone(CLLM4RecConfig(backbone="narrow"), training_texts(OF_CLLM4REC, {}), 0)
    net = CLLM4RecNet(backbone, CONFIG, N_USERS, n_items)
    for side in net.collaborative.parameters():
        torch.nn.init.uniform_(side, -0.02, 0.02)
    net.content.requires_grad_(False)
    net.content.users.weight.zero_()
    net.content.items.weight.data = load_file(content)["items"]
    generator = np.random.default_rng(0)
    users = np.sort(generator.choice(N_USERS, 64 * BATCHES, replace=False)).repeat(A_HISTORY)
    train = Interactions(users, generator.integers(0, n_items, len(users)), N_USERS, n_items)
    tokenizer = ExtendedTokenizer(words, backbone.n_words, N_USERS, n_items)
    corpus = CollaborativeCorpus(train, tokenizer, HistoryOptions(backbone.context, sampled=DRAWS))
    parts = np.array_split(generator.permutation(64 * BATCHES), BATCHES)
    steps: list[MicroBatches] = [[(batch, 1.0)] for batch in corpus.batches(parts, 0, range(BATCHES))]
    return Course(net, TrainConfig(), Accelerator(cpu=True), None), steps


def trained(n_items: int, content: Path) -> None:
    """Some steps, all rows brought up to date, and the best weights kept: what an epoch does."""
    own, batches = course(n_items, content)
    for _ in range(2):
        our_steps(own, "collaborative", batches)
        own.optimizer.catch_up()
        own.keep_best(lambda: None)
        own.net.diagnostics()


def ready(n_items: int, content: Path) -> Callable[[], object]:
    return partial(trained, n_items, content)


def main(given: Settings) -> list[Row]:
    many = 1_000_000 if given.short else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        few_content, content = (mapped(Path(folder), n) for n in (many // 10, many))
        memory = extra_memory(ready, many, content, threads=given.threads) / 1024
        timed = {name: partial(our_steps, own[0], "collaborative", own[1])
                 for name, own in (("many", course(many, content)), ("few", course(many // 10, few_content)))}  # fmt: skip
        times = side_by_side(timed, 3 if given.short else 5)
    most = 8.0 * many / 10_000_000
    shown = {name: f"{value / BATCHES * 1e3:.0f} ms a step" for name, value in times.items()}
    theirs = f"{shown['few']} with {many // 10:,} items; the tables alone are {5 * 4 * many * WIDTH / 2**30:.1f} GiB"
    what = f"GiB, training with {many:,} items, d = {WIDTH}, sampled softmax"
    rows = [Row(what, f"{memory:.1f} GiB, {shown['many']}", theirs, memory, most, True)]
    return report("sampled", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
