"""Several sets or calls of `experiments.full_ranking` at once: what one meets leaves the others alone."""

import gzip
import json
import shutil
import threading
from pathlib import Path

import pytest

from experiments import full_ranking, ranking_runs
from experiments.commands import Cost
from experiments.ranking_results import read_lines, write_results
from experiments.ranking_rows import BASES, ROWS, Row, rows_to_measure, rsllm
from tests.support.folders import lock_holder

BASE = BASES["SEQUENTIAL"]
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


def test_calls_share_a_set(small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each adds its rows to those of the others."""
    output, run_command = tmp_path / "runs", ranking_runs.run_command

    def beside_another(command: str, *arguments: object, processes: int = 1) -> Cost:
        with monkeypatch.context() as patch:
            patch.setattr(ranking_runs, "run_command", run_command)
            full_ranking.main([small_set], [0], ["ItemKNN"], output)
        return run_command(command, *arguments, processes=processes)

    with monkeypatch.context() as patch:
        patch.setattr(ranking_runs, "run_command", beside_another)
        full_ranking.main([small_set], [0], ["popularity"], output)
    assert measured(output) == ["ItemKNN/0", "popularity/0"]


def test_a_row_that_another_call_measures_is_waited_for(small_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    (output / "A" / "small" / "seed0").mkdir(parents=True)
    holder = lock_holder(output / "A" / "small" / "seed0" / "ease.begun.json")
    timer = threading.Timer(3.0, holder.communicate)  # the other call ends without the row
    timer.start()
    assert full_ranking.main([small_set], [0], ["EASE", "popularity"], output) == []
    timer.join()
    assert measured(output) == ["popularity/0", "EASE/0"], "last, and whole"
    assert "Failed" not in (output / "A" / "small" / "table.md").read_text()


def test_a_row_that_another_one_is_built_on_is_waited_for(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call measures popularity, and ends three seconds later."""
    output, run = tmp_path / "runs", ([small_set], [0], ["popularity"])
    full_ranking.main(*run, output)
    of_set = output / "A" / "small"
    whole = (of_set / "results.json").read_text()
    (of_set / "results.json").unlink()
    holder = lock_holder(of_set / "seed0" / "popularity.begun.json")

    def end() -> None:
        (of_set / "results.json").write_text(whole)
        holder.communicate()

    monkeypatch.setattr(Row, "built_on", property(lambda row: ["popularity"]))
    timer = threading.Timer(3.0, end)
    timer.start()
    assert full_ranking.main([small_set], [0], ["EASE"], output) == []
    timer.join()
    assert measured(output) == ["popularity/0", "EASE/0"]


def test_a_row_is_not_built_on_one_that_was_not_measured(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unfinished run has weights, which would be taken."""
    monkeypatch.setitem(ROWS, BASE, (["--system", "sasrec", "--length", "-1"], None))
    rows, encoders = [BASE, "RSLLM, ENCODER"], [("tiny", "tiny")]
    failed = full_ranking.main([small_set], [0], rows, tmp_path / "runs", encoders, protocol="last")
    assert failed == [f"small/{BASE}/0", "small/RSLLM, tiny/0"]
    assert f"RSLLM, tiny/0: it is built on {BASE}/0, which is not measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_of_the_language_model_alone_is_measured_on_the_run_of_another_row(
    small_set: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, folder = tmp_path / "runs", tmp_path / "results"
    encoder = [("stories", str(shared / "backbones" / "stories260K"))]
    rows = [BASE, "RSLLM, ENCODER, unified prompts", "RSLLM, ENCODER, no sequential score"]
    failed = full_ranking.main([small_set], [0], rows[::2], output, encoder, protocol="last")
    assert failed == ["small/RSLLM, stories, no sequential score/0"], "the run is not there"
    assert not full_ranking.main([small_set], [0], rows, output, encoder, protocol="last", results=folder)
    with_score, alone = read_lines(folder / "runs.csv")[1:]
    assert with_score["ndcg@10"] != alone["ndcg@10"]
    assert alone["command"] == f"{with_score['command']} --by language"
    # a run that is trained without the score has the same metrics
    monkeypatch.setitem(ROWS, "RSLLM, ENCODER, trained alone", rsllm("--sequential-score", "none"))
    rows = [BASE, "RSLLM, ENCODER, trained alone"]
    assert not full_ranking.main([small_set], [0], rows, output, encoder, protocol="last", results=folder)
    trained = read_lines(folder / "runs.csv")[-1]
    assert trained["row"] == "RSLLM, stories, trained alone"
    assert trained["ndcg@10"] == alone["ndcg@10"]
    # another run
    file = output / "last" / "small" / "results.json"
    results = json.loads(file.read_text())
    run, row = results["RSLLM, stories, unified prompts/0"], results["RSLLM, stories, no sequential score/0"]
    assert row["code_sha256"] == run["code_sha256"]
    run["metrics"]["ndcg@10"], run["code_sha256"], row["metrics"] = 0.5, "of another run", {}
    file.write_text(json.dumps(results))
    rows = ["RSLLM, ENCODER, no sequential score"]
    assert not full_ranking.main([small_set], [0], rows, output, encoder, protocol="last")
    row = json.loads(file.read_text())["RSLLM, stories, no sequential score/0"]
    assert f"{row['metrics']['ndcg@10']:.6g}" == alone["ndcg@10"], "measured again"
    assert row["code_sha256"] == "of another run"
    # a run with other settings
    run["flags"][1] = ["--epochs", "2"]
    file.write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="holds RSLLM, stories, unified prompts/0, with other settings"):
        full_ranking.main([small_set], [0], rows, output, encoder, protocol="last")


def test_rows_of_rsllm_are_built_on_a_sequential_system_or_are_runs_of_another_row(small_set: Path) -> None:
    rows = [name for name in ROWS if name.startswith("RSLLM")]
    built_on = {
        name: row.built_on for name, row in rows_to_measure(rows, {"X": "tiny"}, None, small_set, "").items()
    }
    alone = built_on.pop("RSLLM, X, no sequential score")
    assert alone == ["SASRec, texts", "RSLLM, X, unified prompts"]
    assert [name for name in rows if "--length" in ROWS[name][0]] == [
        "RSLLM, ENCODER, ten items",
        "RSLLM, ENCODER, ten items, no sequential score",
    ]
    for run in ("RSLLM, X, ten items", "RSLLM, X, soft tokens"):
        assert built_on.pop(f"{run}, no sequential score") == ["SASRec, texts", run]
    on_bsarec = "RSLLM on BSARec, X, unified prompts"
    assert built_on.pop("RSLLM on BSARec, X, no sequential score") == ["BSARec, texts", on_bsarec]
    assert built_on.pop(on_bsarec) == ["BSARec, texts"]
    assert {*map(tuple, built_on.values())} == {("SASRec, texts",)}


def test_rows_of_another_model_are_refused(small_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    full_ranking.main([small_set], [0], ["popularity"], output)
    file = output / "A" / "small" / "results.json"
    results = json.loads(file.read_text())
    results["popularity/0"]["encoder"] = "another"
    file.write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="holds popularity/0, with another model: name another --output"):
        full_ranking.main([small_set], [0], ["popularity"], output)


def test_the_quick_table_compares_with_its_first_row() -> None:
    typed = ["--data", "small", "--output", "runs"]
    quick = full_ranking.parsed([*typed, "--quick"])
    assert quick["rows"][0] == quick["reference"] == "CLLM4Rec, 5 minutes a stage"
    assert quick["seeds"] == [0]
    chosen = full_ranking.parsed([*typed, "--quick", "--rows", "EASE"])
    assert (chosen["rows"], chosen["reference"]) == (["EASE"], None)
