"""Datasets as callers name them."""

from pathlib import Path

from cllm4rec.data.dataset import Dataset


def as_dataset(dataset: Dataset | str | Path) -> Dataset:
    """A dataset, or that of a folder.

    Raises:
        ValueError: it is something else, or the folder holds no dataset.
    """
    if isinstance(dataset, str | Path):
        return Dataset.load(dataset)
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"a value of type {type(dataset).__name__} is no dataset: give one, such as "
            "Dataset.from_frame(events), or its folder"
        )
    return dataset
