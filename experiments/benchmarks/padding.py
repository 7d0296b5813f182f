"""Which share of the positions that are computed is padding, in an epoch of each objective as the loop visits it."""

import sys

from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig, RSLLMConfig
from cllm4rec.models.rsllm import RSLLM
from cllm4rec.models.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Objective, micro_batches, n_steps
from experiments.benchmarks.common import Row, Settings, report, settings

SETS = ("amazon-beauty-p5", "srb-movielens-1m")


def read(given: Settings, name: str) -> Dataset:
    """Its events and titles, each user's last items held out.

    Raises:
        SystemExit: it is not there.
    """
    folder = given.shared / "data" / name
    if not folder.is_dir():
        sys.exit(f"error: {folder}: there is no such folder: --shared or CLLM4REC_SHARED says in which one data/ lies")
    interactions, items = (folder / f"{one}.tsv.gz" for one in ("interactions", "items"))
    return build_dataset(interactions, items, split="leave-last-out")


def objectives(train: Dataset) -> list[tuple[str, Objective, TrainConfig]]:
    """Those of both systems, each with the settings it is trained with by default."""
    found = []
    untrained = TrainConfig(epochs=0)
    systems = (CLLM4Rec(CLLM4RecConfig(start="random")), RSLLM(RSLLMConfig()))
    systems[1].given_first = SASRec().fit(train, None, untrained)
    for system in systems:
        for stage in system.stages:
            system.fit(train, None, untrained, stage)
            config = system.config_class.training[stage]
            found += [(f"{system.name}, {stage}", one, config) for one in system._objectives(train, stage, config)]
    return found


def main(given: Settings) -> list[Row]:
    rows = []
    for name in SETS[: 1 if given.short else None]:
        for what, objective, config in objectives(read(given, name).train):
            tokens = positions = 0
            steps = range(0, n_steps(objective, objective.from_epoch, config), 5 if given.short else 1)
            for batches in micro_batches(objective, objective.from_epoch, steps, config, Accelerator(cpu=True)):
                for batch, _ in batches:
                    tokens, positions = tokens + int(batch["mask"].sum()), positions + batch["mask"].numel()
            share = 1 - tokens / positions
            shown = f"{tokens:,} of {positions:,} positions are tokens"
            rows.append(Row(f"padding, {name}, {what}, {objective.name}", shown, "", share, 0.1, True))
    return report("padding", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
