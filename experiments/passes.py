"""Cost of a pass of each pretraining objective of CLLM4Rec: tokens and CPU seconds.

    python -m experiments.passes --dataset datasets/musical/seed0

Data: a dataset folder.

Prints a table: tokens and CPU seconds of a pass, and their ratio to the collaborative pass. Each objective
is trained alone for a few passes; the first pass is not counted.
"""

import argparse
import time
from pathlib import Path

import torch

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.loop import train
from cllm4rec.training.objective import Objective
from cllm4rec.training.records import EpochRecord
from experiments.benchmarks.objectives import stage_objectives
from experiments.report import markdown_table


def main(dataset: Dataset, passes: int) -> None:
    torch.set_num_threads(1)
    config, model = TrainConfig(epochs=passes + 1), CLLM4Rec()
    rows, collaborative_seconds = [], 0.0
    objectives = stage_objectives(model, dataset.train, "pretrain")
    for objective in reversed(objectives):  # collaborative first
        epochs: list[tuple[float, EpochRecord]] = []

        def note(record: EpochRecord, epochs: list[tuple[float, EpochRecord]] = epochs) -> None:
            epochs.append((time.process_time(), record))

        alone = Objective(objective.name, objective.corpus)
        train(model.net, [alone], config, make_accelerator(), Hooks(on_epoch=note))
        seconds = (epochs[-1][0] - epochs[0][0]) / passes
        tokens = sum(record.tokens_per_second * record.seconds for _, record in epochs[1:]) / passes
        collaborative_seconds = collaborative_seconds or seconds
        ratio = seconds / collaborative_seconds
        rows.append([objective.name, f"{tokens:,.0f}", f"{seconds:.2f}", f"{ratio:.2f}"])
    header = ["objective", "tokens a pass", "CPU seconds a pass", "of the collaborative one"]
    say(markdown_table(header, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True, help="folder written by prepare")
    parser.add_argument("--passes", type=int, default=3, help="passes to average over (default: %(default)s)")
    arguments = parser.parse_args()
    main(Dataset.load(arguments.dataset), arguments.passes)
