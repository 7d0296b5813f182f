"""Share of validation in the time of a stage, on all validation users, with default training.

    python -m experiments.benchmarks.validation --output bench

Data: Amazon Beauty and MovieLens 1M, as `experiments.recipes` writes them (--datasets).

Prints the minutes of all validations and their ratio to the training steps. Both are estimates of a dry run.
"""

from accelerate import Accelerator

from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.estimation import estimated_stage
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from experiments.benchmarks.datasets import dataset_names, read_dataset
from experiments.benchmarks.objectives import start_stage
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

STAGES: tuple[tuple[type[NeuralRecommender], str], ...] = (
    (SASRec, "pretrain"),
    (CLLM4Rec, "finetune"),
    (CLLM4Rec, "pretrain"),
    (RSLLM, "finetune"),
)


def main(settings: Settings) -> list[Row]:
    rows, accelerator = [], Accelerator(cpu=True)
    for name in dataset_names(settings):
        dataset = read_dataset(name, settings)
        for system_class, stage in STAGES:
            system = system_class()
            if stage == "finetune":
                start_stage(system, dataset.train, "pretrain")
            config = system.config.default_training[stage]
            dry_run = estimated_stage(system, dataset, stage, config, accelerator)
            step_seconds = dry_run.max_seconds - dry_run.validation_seconds
            question = f"validation, {name}, {system.name}, {stage}"
            measured = f"{dry_run.validation_seconds / 60:.1f} min in {config.epochs} epochs"
            comparator = f"{step_seconds / 60:.1f} min of steps"
            rows.append(
                Row(question, measured, comparator, dry_run.validation_seconds / step_seconds, 0.1, True)
            )
    return report("validation", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
