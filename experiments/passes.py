"""What a pass of each objective costs: tokens, padding and CPU seconds, side by side.

    python -m experiments.passes --dataset runs/musical/seed0/dataset

Each objective of pretraining is trained for a few passes of its own; the first is not counted.
"""

import argparse
import time
from pathlib import Path

import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.neural import make_accelerator
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Objective, train
from cllm4rec.training.meter import EpochRecord
from experiments.commands import show, table


def main(dataset: Dataset, passes: int) -> None:
    torch.set_num_threads(1)
    config, model = TrainConfig(epochs=passes + 1), CLLM4Rec()
    model.fit(dataset.train, None, TrainConfig(epochs=0))
    rows, first = [], 0.0
    for objective in reversed(model._objectives(dataset.train, "pretrain", config)):  # the collaborative one first
        ended: list[float] = []
        records: list[EpochRecord] = []

        def note(record: EpochRecord, ended: list[float] = ended, records: list[EpochRecord] = records) -> None:
            ended.append(time.process_time())
            records.append(record)

        train(model.net, [Objective(objective.name, objective.corpus)], config, make_accelerator(), on_epoch=note)
        seconds = (ended[-1] - ended[0]) / passes
        tokens = sum(record.tokens_per_second * record.seconds for record in records[1:]) / passes
        first = first or seconds
        rows.append([objective.name, f"{tokens:,.0f}", f"{seconds:.2f}", f"{seconds / first:.2f}"])
    show(table(["objective", "tokens a pass", "CPU seconds a pass", "of the collaborative one"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder written by prepare")
    parser.add_argument("--passes", type=int, default=3, help="passes to average over")
    given = parser.parse_args()
    main(Dataset.load(given.dataset), given.passes)
