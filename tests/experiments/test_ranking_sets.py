"""Several sets or calls of `experiments.full_ranking` at once: what one meets leaves the others alone."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import full_ranking, ranking_runs
from experiments.commands import Cost
from experiments.ranking_results import read_lines, write_results
from tests.support.folders import lock_holder

pytestmark = pytest.mark.usefixtures("commands_here")


def measured(output: Path) -> list[str]:
    """The rows in results.json of the set `small` under protocol A."""
    return [*json.loads((output / "A" / "small" / "results.json").read_text())]


def test_several_sets_are_measured_in_one_call(small_set: Path, tmp_path: Path) -> None:
    other = shutil.copytree(small_set, tmp_path / "other")
    output, folder = tmp_path / "runs", tmp_path / "results"
    full_ranking.main([small_set, other], [0], ["popularity"], output, results=folder)
    assert [line["set"] for line in read_lines(folder / "runs.csv")] == ["small", "other"]
    with pytest.raises(SystemExit, match="--reference Popularity: the rows are popularity"):
        full_ranking.main([small_set], [0], ["popularity"], output, reference="Popularity")
    with pytest.raises(SystemExit, match="two folders of --data have the same name: rename one"):
        full_ranking.main([small_set, small_set], [0], ["popularity"], output)


def test_a_mistake_in_a_later_set_is_found_before_the_first_run(small_set: Path, tmp_path: Path) -> None:
    other, output = shutil.copytree(small_set, tmp_path / "other"), tmp_path / "runs"
    (other / "seed0").rename(other / "seed1")
    with pytest.raises(SystemExit, match="other has no folder seed0"):
        full_ranking.main([small_set, other], [0], ["popularity"], output)
    assert not [*output.rglob("results.json")]


def test_a_set_that_cannot_be_prepared_leaves_the_others(small_set: Path, tmp_path: Path) -> None:
    other, output = shutil.copytree(small_set, tmp_path / "other"), tmp_path / "runs"
    with gzip.open(other / "interactions.tsv.gz", "wt") as file:
        file.write("no such\tcolumns\n1\t2\n")
    failed = full_ranking.main([other, small_set], None, ["popularity"], output, protocol="time")
    assert failed == ["other"]
    assert (output / "time" / "small" / "table.md").is_file()


def test_a_run_whose_folder_was_removed_is_measured_again(small_set: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "runs", tmp_path / "results"
    full_ranking.main([small_set], [0], ["popularity", "ItemKNN"], output)
    shutil.rmtree(output / "A" / "small" / "seed0" / "popularity")
    write_results(folder, "small", "A", output / "A" / "small")
    assert [line["row"] for line in read_lines(folder / "runs.csv")] == ["ItemKNN"]
    full_ranking.main([small_set], [0], ["popularity", "ItemKNN"], output, results=folder)
    assert {line["row"] for line in read_lines(folder / "runs.csv")} == {"popularity", "ItemKNN"}


def test_calls_share_a_set(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each adds its rows to those of the others, and leaves alone what another one measures."""
    output, run_command = tmp_path / "runs", ranking_runs.run_command

    def beside_another(command: str, *arguments: object) -> Cost:
        with monkeypatch.context() as patch:
            patch.setattr(ranking_runs, "run_command", run_command)
            full_ranking.main([small_set], [0], ["ItemKNN"], output)
        return run_command(command, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ranking_runs, "run_command", beside_another)
        full_ranking.main([small_set], [0], ["popularity"], output)
    assert measured(output) == ["ItemKNN/0", "popularity/0"]

    holder = lock_holder(output / "A" / "small" / "seed0" / "ease.begun.json")
    run: tuple[Any, ...] = ([small_set], [0], ["EASE", "bag"], output)
    assert full_ranking.main(*run) == ["small/EASE/0"]
    assert "EASE/0: " in (printed := capsys.readouterr().out)
    assert "ease.begun.json is being written by process" in printed
    assert measured(output) == ["ItemKNN/0", "popularity/0", "bag/0"]
    holder.communicate()
    assert full_ranking.main(*run) == []


def test_the_quick_table_compares_with_its_first_row() -> None:
    typed = ["--data", "small", "--output", "runs"]
    quick = full_ranking.parsed([*typed, "--quick"])
    assert quick["rows"][0] == quick["reference"] == "CLLM4Rec, 5 minutes a stage"
    assert quick["seeds"] == [0]
    chosen = full_ranking.parsed([*typed, "--quick", "--rows", "EASE"])
    assert (chosen["rows"], chosen["reference"]) == (["EASE"], None)
