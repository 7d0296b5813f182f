"""Share of padding in the computed positions, in an epoch of each objective.

    python -m experiments.benchmarks.padding --output bench

Data: Amazon Beauty and MovieLens 1M, as `experiments.recipes` writes them (--datasets).

Prints the share of positions that are padding, for every stage of CLLM4Rec and RSLLM with default training.
"""

from accelerate import Accelerator

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.batching import micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective
from experiments.benchmarks.datasets import dataset_names, read_dataset
from experiments.benchmarks.objectives import stage_objectives
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line


def count_positions(objective: Objective, config: TrainConfig, every: int) -> tuple[int, int]:
    """Tokens and positions of an epoch, in every so many of its steps."""
    tokens = positions = 0
    steps = range(0, n_steps(objective, objective.from_epoch, config), every)
    for batches in micro_batches(objective, objective.from_epoch, steps, config, Accelerator(cpu=True)):
        for batch, _ in batches:
            tokens, positions = tokens + batch.n_tokens, positions + batch.mask.numel()
    return tokens, positions


def main(settings: Settings) -> list[Row]:
    rows = []
    for name in dataset_names(settings):
        train = read_dataset(name, settings).train
        for system in (CLLM4Rec(CLLM4RecConfig(start="random")), RSLLM(RSLLMConfig())):
            for stage in system.stages:
                config = system.config.default_training[stage]
                for objective in stage_objectives(system, train, stage):
                    tokens, positions = count_positions(objective, config, 5 if settings.short else 1)
                    question = f"padding, {name}, {system.name}, {stage}, {objective.name}"
                    measured = f"{tokens:,} of {positions:,} positions are tokens"
                    rows.append(Row(question, measured, "", 1 - tokens / positions, 0.1, True))
    return report("padding", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
