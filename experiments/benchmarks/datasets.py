"""The real data sets of the benchmarks."""

import sys

from cllm4rec.data.dataset import Dataset
from experiments.benchmarks.results import Settings

BEAUTY, MOVIELENS = DATASETS = ("beauty", "ml-1m")  # folders that recipes wrote


def read_dataset(name: str, settings: Settings) -> Dataset:
    """Events and titles of a recipe's folder, split by leave-last-out.

    Raises:
        SystemExit: there is no such folder.
    """
    folder = settings.datasets / name
    if not folder.is_dir():
        sys.exit(f"error: {folder} does not exist: make it by experiments.recipes {name}, or give --datasets")
    return Dataset.from_frame(folder / "interactions.tsv.gz", folder / "items.tsv.gz", split="leave-last-out")


def dataset_names(settings: Settings) -> tuple[str, ...]:
    """The data sets that a question runs on: in the short form the first."""
    return DATASETS[:1] if settings.short else DATASETS
