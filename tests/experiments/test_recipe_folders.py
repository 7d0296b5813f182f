"""Experiments on a folder that a recipe wrote."""

import gzip
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.synthetic import taste_world
from experiments import candidates
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


@pytest.mark.slow
def test_candidates_reads_tables_and_a_split_file(tmp_path: Path) -> None:
    world, data, output = (
        taste_world(0, n_users=20, n_items=40, n_events=6),
        tmp_path / "data",
        tmp_path / "runs",
    )
    data.mkdir()
    for name, table in (("interactions", world.events), ("items", world.items)):
        text = table.write_csv(separator="\t", quote_style="never")
        (data / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    users, items = (world.events[name].unique(maintain_order=True) for name in ("user_id", "item_id"))
    rows = [
        (part, users[index], " ".join(items[index : index + 3]), items[index + 3])
        for index, part in enumerate(["val", "test", "test"])
    ]
    columns = ["split", "user_id", "history_items", "target_item"]
    split = tmp_path / "held_out.tsv"
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(split, separator="\t")
    tables = {"interactions": data / "interactions.tsv.gz", "items": data / "items.tsv.gz", "split": split}
    rows_of_table = [
        "sequential system",
        "RSLLM",
        "RSLLM, soft tokens alone",
        "RSLLM, constrained generation",
    ]
    plan = candidates.Plan("sasrec", "tiny", 3, 1, (1, 1), rows_of_table)
    options = {"seeds": [0], "plan": plan, "output": output}
    candidates.main(**tables, **options)
    assert "| RSLLM, soft tokens alone " in (output / "table.md").read_text()
    of_folds = replace(plan, rows=["sequential system"])
    candidates.main(**tables, seeds=[0], plan=of_folds, output=tmp_path / "folds", folds=2)
    assert "| sequential system " in (tmp_path / "folds" / "table.md").read_text()
    assert pl.read_parquet(tmp_path / "folds" / "fold0" / "sequential-scores.parquet").height == 10
    with pytest.raises(SystemExit, match="has results with another candidates: 3, not 4; give another"):
        candidates.main(**tables, **options | {"plan": replace(plan, candidates=4)})
    fewer = replace(plan, rows=["RSLLM"])
    with pytest.raises(SystemExit, match="with another names candidates: True, not False"):
        candidates.main(**tables, **options | {"plan": fewer})
    with pytest.raises(SystemExit, match="another folds: 2, not 3"):
        candidates.main(**tables, seeds=[0], plan=of_folds, output=tmp_path / "folds", folds=3)
    with pytest.raises(SystemExit, match="--only fold2: the parts are fold0, fold1"):
        candidates.main(
            **tables, seeds=[0], plan=of_folds, output=tmp_path / "folds", folds=2, only=["fold2"]
        )
    with pytest.raises(SystemExit, match="--items .*absent.tsv: there is no such file"):
        candidates.main(**tables | {"items": tmp_path / "absent.tsv"}, **options)
    (data / "interactions.tsv.gz").write_bytes(b"of another data set")
    with pytest.raises(SystemExit, match="has results with another --interactions"):
        candidates.main(**tables, **options)
