"""Files of events, and the datasets that the command prepare makes of them."""

from pathlib import Path

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset
from tests.support.tables import written


def single_user_file(folder: Path, header: str, *rows: str) -> Path:
    """Write the events of one user as e.tsv; | separates the cells, and item ids are added."""
    lines = [f"user_id|item_id|{header}", *(f"u|i{number}|{row}" for number, row in enumerate(rows))]
    return written(folder / "e.tsv", "\n".join(lines).replace("|", "\t") + "\n")


def prepare_dataset(folder: Path, *flags: object) -> Dataset:
    """Run the command prepare and load its dataset."""
    prepare.main([*map(str, flags), "--output", str(folder / "data")])
    return Dataset.load(folder / "data")


def dataset_events(dataset: Dataset) -> list[tuple[object, object]]:
    """Return (user id, item id) of all events in order."""
    users, items = dataset.interactions.users, dataset.interactions.items
    return list(
        zip(dataset.user_ids.names(users).to_list(), dataset.item_ids.names(items).to_list(), strict=True)
    )
