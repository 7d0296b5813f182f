"""Experiments on a folder that a recipe wrote."""

from pathlib import Path

import pytest

from experiments.prepared import prepare_once


def test_a_dataset_of_other_tables_is_not_used(tmp_path: Path) -> None:
    events, dataset, record = (tmp_path / name for name in ("events.csv", "dataset", "dataset-inputs.json"))
    events.write_text("user_id,item_id\n1,2\n1,3\n")
    prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    before = dataset.stat().st_ino
    prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    assert dataset.stat().st_ino == before, "prepared again"
    events.write_text("user_id,item_id\n1,2\n1,4\n")
    with pytest.raises(SystemExit, match="was made with another --interactions: name another --output"):
        prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    record.unlink()
    with pytest.raises(SystemExit, match="there is no .*dataset-inputs.json"):
        prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    assert dataset.stat().st_ino == before
