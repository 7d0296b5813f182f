"""The README's table of results: numbers worked by hand, and that the README has it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cllm4rec.evaluation.slices import BY_ACTIVITY, BY_DAY
from experiments import ranking_report
from experiments.ranking_results import DIFFERENCES, RUNS, SLICES, read_lines, write_lines

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of all rows on one set, and a third one of CLLM4Rec alone, which does not count."""
    runs = [
        "set,protocol,row,seed,ndcg@100,ndcg@100 low,ndcg@100 high,training_cpu_seconds",
        "beauty,A,CLLM4Rec,0,0.2,0.19,0.21,10",
        "beauty,A,CLLM4Rec,1,0.3,0.29,0.31,30",
        "beauty,A,bag,0,0.1,0.09,0.11,2",
        "beauty,A,bag,1,0.2,0.19,0.21,4",
        'beauty,A,"bag, MiniLM",0,0.2,0.19,0.21,5',
        'beauty,A,"bag, MiniLM",1,0.3,0.29,0.31,5',
        "beauty,A,CLLM4Rec,2,0.9,0.89,0.91,30",
    ]
    differences = [
        "set,protocol,reference,row,metric,seeds,users,difference,low,high",
        "beauty,A,CLLM4Rec,bag,ndcg@100,0 1,9,0.1,-0.02,0.22",
        'beauty,A,CLLM4Rec,"bag, MiniLM",ndcg@100,0 1,9,-0.05,-0.1,0.01',
        'beauty,A,CLLM4Rec,"bag, MiniLM",ndcg@100,0,9,0.0,-0.3,0.3',
        "beauty,A,CLLM4Rec,bag,recall@20,0 1,9,0.5,0.4,0.6",
        "beauty,A,iALS,bag,ndcg@100,0 1,9,0.7,0.6,0.8",
    ]
    (tmp_path / RUNS).write_text("\n".join(runs) + "\n")
    (tmp_path / DIFFERENCES).write_text("\n".join(differences) + "\n")
    slices = ["set,protocol,row,seed,by,slice,lowest,highest,n_users,ndcg@100,recall@20"]
    for row, seed, same, other in (
        ("CLLM4Rec", 0, 0.5, 0.1),
        ("CLLM4Rec", 1, 0.7, 0.2),
        ("bag", 0, 0.4, 0.2),
        ("bag", 1, 0.5, 0.2),
        ('"bag, MiniLM"', 0, 0.3, 0.2),
        ('"bag, MiniLM"', 1, 0.3, 0.3),
        ("CLLM4Rec", 2, 1.0, 1.0),
    ):
        slices += [
            f"beauty,A,{row},{seed},{BY_DAY},0,0,0,9,{same},0",
            f"beauty,A,{row},{seed},{BY_DAY},1,2,31,9,{other},0",
            f"beauty,A,{row},{seed},{BY_ACTIVITY},0,1,4,9,0.1,0",
        ]
    (tmp_path / SLICES).write_text("\n".join(slices) + "\n")
    return tmp_path


def cells(table: str) -> dict[str, list[str]]:
    """Row -> its other cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: values for name, *values in lines}


def test_cells_are_means_and_paired_intervals(folder: Path) -> None:
    table = cells(ranking_report.table(folder))
    assert table["CLLM4Rec"] == [".2500"]
    assert table["bag"] == [".2500"], "the form with an encoder is better"
    assert table["EASE"] == [""]
    assert table["CLLM4Rec minus the best other"] == ["[-.1000, +.0100]"]


def test_a_form_over_fewer_seeds_is_left_out_and_the_others_keep_theirs(folder: Path) -> None:
    form = [line for line in read_lines(folder / RUNS) if (line["row"], line["seed"]) != ("bag, MiniLM", "1")]
    (folder / RUNS).unlink()
    write_lines(folder / RUNS, form)
    table = cells(ranking_report.table(folder))
    assert table["CLLM4Rec"] == [".2500"]
    assert table["bag"] == [".1500"]
    assert table["CLLM4Rec minus the best other"] == ["[-.0200, +.2200]"]


def test_sets_are_those_of_the_results(folder: Path) -> None:
    lines = read_lines(folder / RUNS)
    own = [line | {"set": "mine"} for line in lines if line["row"] == "CLLM4Rec"]
    write_lines(folder / RUNS, own)
    assert "Beauty |" in (table := ranking_report.table(folder)).splitlines()[0]
    assert "mine |" in table.splitlines()[0]
    assert cells(table)["CLLM4Rec"] == [".2500", ".4667"]
    assert cells(table)["CLLM4Rec minus the best other"] == ["[-.1000, +.0100]", ""]
    (folder / RUNS).unlink()
    write_lines(folder / RUNS, [line | {"row": "ItemKNN"} for line in lines])
    with pytest.raises(SystemExit, match="runs.csv has no main row of protocol A: CLLM4Rec, bag, EASE"):
        ranking_report.table(folder)


def test_a_difference_over_other_seeds_does_not_stand_beside_a_mean(folder: Path) -> None:
    lines = [line for line in read_lines(folder / DIFFERENCES) if line["seeds"] != "0 1"]
    (folder / DIFFERENCES).unlink()
    write_lines(folder / DIFFERENCES, lines)
    with pytest.raises(SystemExit, match="has no bag, MiniLM on beauty over seeds 0 1: run experiments.full"):
        ranking_report.table(folder)


def test_slices_by_day_are_means_over_seeds(folder: Path) -> None:
    lines = ranking_report.day_table(folder).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "",
        "Beauty, same day",
        "Beauty, other day",
    ]
    table = cells("\n".join(lines))
    assert table["CLLM4Rec"] == [".6000", ".1500"]
    assert table["bag"] == [".3000", ".2500"], "the form with an encoder is better on all events"
    assert "EASE" not in table, "it was not measured"


@pytest.mark.parametrize("draw", [ranking_report.draw_times, ranking_report.draw_slices])
def test_figures_are_written(folder: Path, draw: Callable[[Path, Path], None]) -> None:
    draw(folder, folder / "figure.svg")
    picture = (folder / "figure.svg").read_text()
    assert ">CLLM4Rec</text>" in picture
    assert ">iALS</text>" not in picture, "it was not measured"
    if draw is ranking_report.draw_times:
        assert all(f">{label}</text>" in picture for label in ("bag, MiniLM", "Beauty"))
    else:
        assert all(f">{label}</text>" in picture for label in ("bag, MiniLM", "2-31", "1-4"))


def test_other_tables_are_refused(folder: Path) -> None:
    (folder / RUNS).write_text("a\n1\n")
    with pytest.raises(SystemExit, match="runs.csv is no table of results .*: name another folder"):
        ranking_report.table(folder)
    (folder / RUNS).unlink()
    with pytest.raises(
        SystemExit, match="runs.csv is not there: experiments.full_ranking --results writes it"
    ):
        ranking_report.table(folder)


def test_the_readme_has_the_table_of_the_committed_results() -> None:
    in_readme = (ROOT / "README.md").read_text().split("\n## Results\n")[1].split("\n\n")
    shown = next(part for part in in_readme if part.startswith("|"))
    assert cells(shown) == cells(ranking_report.table(ranking_report.RESULTS))


def test_other_forms_are_over_the_most_seeds(folder: Path) -> None:
    lines = [
        'beauty,A,CLLM4Rec,"CLLM4Rec, no layer",ndcg@100,0,9,0.3,0.1,0.5',
        'beauty,A,CLLM4Rec,"CLLM4Rec, no layer",ndcg@100,0 1,9,0.01,-0.002,0.022',
        'beauty,A,CLLM4Rec,"CLLM4Rec, no layer",recall@20,0 1 2,9,0.4,0.3,0.5',
        'musical,A,CLLM4Rec,"CLLM4Rec, tiny",ndcg@100,1,9,-0.02,-0.03,-0.01',
        'musical,time,CLLM4Rec,"CLLM4Rec, tiny",ndcg@100,0 1,9,0.2,0.1,0.3',
    ]
    assert ranking_report.form_table(folder) == ""
    with (folder / DIFFERENCES).open("a") as file:
        file.write("\n".join(lines) + "\n")
    assert cells(ranking_report.form_table(folder)) == {
        "no layer": ["", "+.0100 [-.0020, +.0220]; 2 splits"],
        "tiny": ["-.0200 [-.0300, -.0100]", ""],
    }
