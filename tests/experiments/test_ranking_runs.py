"""`experiments.full_ranking` on a folder that a recipe wrote: tables, and lines of CSV files."""

import json
import re
import shlex
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import SplitDescription
from cllm4rec.training.run_folder import RunFolder
from experiments import full_ranking, ranking_runs, tune
from experiments.commands import CommandFailed, Cost
from experiments.protocols import PROTOCOLS
from experiments.ranking_results import command, read_lines, write_lines
from experiments.ranking_rows import ROWS, rows_to_measure, with_encoder
from experiments.recipes.__main__ import main as make
from experiments.tuning.rows import read_rows

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("commands_here")


def test_full_ranking_reads_the_dataset_folder_of_a_seed(small_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    full_ranking.main([small_set], [0], ["popularity", "ItemKNN"], output)
    table = (output / "A" / "small" / "table.md").read_text()
    assert "| popularity |" in table
    assert "| ItemKNN " in table
    with pytest.raises(SystemExit, match="has no folder seed1: experiments.recipes --seeds makes it"):
        full_ranking.main([small_set], [0, 1], ["popularity"], output)


def test_full_ranking_has_rows_with_the_settings_that_a_search_chose(small_set: Path, tmp_path: Path) -> None:
    dataset, tuned, output = small_set / "seed0", tmp_path / "tuned", tmp_path / "runs"
    budget = tune.Budget(trials=3)
    tune.main(dataset, ["itemknn"], "random", budget, 0, [], tuned)
    full_ranking.main([small_set], [0], ["popularity", "ItemKNN"], output, tuned=tuned)
    results = json.loads((output / "A" / "small" / "results.json").read_text())
    assert list(results) == ["popularity/0", "ItemKNN, tuned/0"]
    best = max(read_rows(tuned / "small" / "itemknn.csv"), key=lambda row: float(row["ndcg@100"]))
    recorded = (
        RunFolder.open(output / "A" / "small" / "seed0" / "itemknn-tuned")
        .description.stages["pretrain"]
        .system
    )
    assert {name: recorded[name] for name in ("neighbours", "shrinkage")} == json.loads(best["values"])
    assert "| ItemKNN, tuned " in (output / "A" / "small" / "table.md").read_text()
    with pytest.raises(SystemExit, match="none has no trials of these --rows on small: name another"):
        full_ranking.main([small_set], [0], ["ItemKNN"], output, tuned=tmp_path / "none")
    file = tuned / "small" / "itemknn.csv"
    file.write_text(file.read_text().replace(read_rows(file)[0]["data_sha256"], "0" * 64))
    with pytest.raises(SystemExit, match="itemknn.csv was measured on other data than this set"):
        full_ranking.main([small_set], [0], ["ItemKNN"], output, tuned=tuned)
    results["popularity/0"]["flags"] = [["--system", "ease"], None]
    (output / "A" / "small" / "results.json").write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="holds popularity/0, with other settings: name another --output"):
        full_ranking.main([small_set], [0], ["popularity"], output)


def test_full_ranking_leaves_out_a_row_that_fails(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: tuple[Any, ...] = ([small_set], [0], ["EASE", "popularity"], tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setitem(ROWS, "EASE", (["--system", "ease", "--regularization", "-1"], None))
        assert full_ranking.main(*run) == ["small/EASE/0"]
    table = (tmp_path / "runs" / "A" / "small" / "table.md").read_text()
    assert "| popularity |" in table
    assert "Failed, so that their rows are left out: EASE/0." in table
    assert full_ranking.main(*run) == [], "tried again"


def test_an_interrupted_training_goes_on_with_the_same_settings_only(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went on measures what an unbroken training does; its costs are not known."""
    run_command = ranking_runs.run_command

    def interrupted(command: str, *arguments: object, processes: int = 1) -> Cost:
        if command == "finetune":
            raise KeyboardInterrupt
        return run_command(command, *arguments, processes=processes)

    def measured(output: Path, *epochs: str) -> dict[str, Any]:
        flags = ["--epochs", *epochs]
        monkeypatch.setitem(ROWS, "CLLM4Rec", (["--backbone", "1x64", *flags], flags))
        assert full_ranking.main([small_set], [0], ["CLLM4Rec"], output, results=tmp_path / "results") == []
        row: dict[str, Any] = json.loads((output / "A" / "small" / "results.json").read_text())["CLLM4Rec/0"]
        return row

    broken, unbroken = tmp_path / "broken", measured(tmp_path / "unbroken", "2")
    for epochs in ("2", "1"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ranking_runs, "run_command", interrupted)
            measured(broken / epochs, epochs)
    resumed = measured(broken / "2", "2")
    assert resumed["metrics"] == unbroken["metrics"]
    assert unbroken["training_cpu_seconds"] > 0
    assert resumed["training_cpu_seconds"] is resumed["peak_mib"] is None
    assert re.search(r"\| CLLM4Rec .*\| +resumed \| +resumed \|", (broken / "2/A/small/table.md").read_text())
    assert [line["training_cpu_seconds"] for line in read_lines(tmp_path / "results" / "runs.csv")] == [""]
    anew = measured(broken / "1", "2")
    assert anew["metrics"] == unbroken["metrics"]
    assert anew["training_cpu_seconds"] > 0, "other settings: begun anew"
    (broken / "1" / "A" / "small" / "results.json").unlink()
    assert measured(broken / "1", "2")["training_cpu_seconds"] > 0, "nothing was interrupted"


def test_a_run_that_failed_begins_anew(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a damaged file is why it failed, and where the note of an interrupted call is damaged."""

    def fails(command: str, *arguments: object, processes: int = 1) -> Cost:
        raise CommandFailed(2, Cost(1.0, 1.0, 1.0))

    def interrupted(command: str, *arguments: object, processes: int = 1) -> Cost:
        raise KeyboardInterrupt

    of_set = tmp_path / "runs" / "A" / "small"
    run: tuple[Any, ...] = ([small_set], [0], ["popularity"], tmp_path / "runs")
    noted = of_set / "seed0" / "popularity.begun.json"
    with monkeypatch.context() as patch:
        patch.setattr(ranking_runs, "run_command", fails)
        assert full_ranking.main(*run) == ["small/popularity/0"]
        assert not noted.exists()
        patch.setattr(ranking_runs, "run_command", interrupted)
        with pytest.raises(KeyboardInterrupt):
            full_ranking.main(*run)
    assert noted.is_file()
    noted.write_bytes(b"\xff")
    (of_set / "seed0" / "popularity").mkdir()
    assert full_ranking.main(*run) == []
    assert json.loads((of_set / "results.json").read_text())["popularity/0"]["training_cpu_seconds"] > 0
    assert not noted.exists()


def test_a_run_that_failed_goes_on_if_it_saved_progress(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a signal to the launcher of several processes, whose status is that of any failure."""
    run_command, run_evaluate = ranking_runs.run_command, ranking_runs.evaluate
    flags = ["--epochs", "1"]
    monkeypatch.setitem(ROWS, "CLLM4Rec", (["--backbone", "1x64", *flags], flags))
    run: tuple[Any, ...] = ([small_set], [0], ["CLLM4Rec"], tmp_path / "runs")
    of_set = tmp_path / "runs" / "A" / "small"
    noted = of_set / "seed0" / "cllm4rec.begun.json"
    done: list[str] = []

    def without_finetune(command: str, *arguments: object, processes: int = 1) -> Cost:
        if command == "finetune":
            raise CommandFailed(1, Cost(1.0, 1.0, 1.0))
        return run_command(command, *arguments, processes=processes)

    def without_evaluate(run: Path, processes: int = 1) -> Cost:
        raise CommandFailed(1, Cost(1.0, 1.0, 1.0))

    def recorded(command: str, *arguments: object, processes: int = 1) -> Cost:
        done.append(command)
        return run_command(command, *arguments, processes=processes)

    weights = of_set / "seed0" / "cllm4rec" / "pretrain" / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(ranking_runs, "run_command", without_finetune)
        assert full_ranking.main(*run) == ["small/CLLM4Rec/0"]
        assert noted.exists(), "pretraining ended"
        written = weights.stat().st_mtime_ns
        patch.setattr(ranking_runs, "run_command", recorded)
        patch.setattr(ranking_runs, "evaluate", without_evaluate)
        assert full_ranking.main(*run) == ["small/CLLM4Rec/0"]
        assert noted.exists(), "finetuning ended"
        patch.setattr(ranking_runs, "evaluate", run_evaluate)
        assert full_ranking.main(*run) == []
    assert done == ["pretrain", "finetune"] * 2
    assert weights.stat().st_mtime_ns == written, "never trained again"
    assert json.loads((of_set / "results.json").read_text())["CLLM4Rec/0"]["training_cpu_seconds"] is None


def test_full_ranking_writes_a_line_for_each_run(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, file = tmp_path / "runs", tmp_path / "results" / "runs.csv"
    file.parent.mkdir()
    file.write_text("set,protocol,row,seed,ndcg@100\nother,A,popularity,0,0.5\nsmall,A,EASE,0,0.1\n")
    monkeypatch.setitem(PROTOCOLS, "A", replace(PROTOCOLS["A"], reference="EASE"))
    full_ranking.main([small_set], [0], ["popularity", "EASE"], output, results=file.parent)
    other, ease, popularity = read_lines(file)
    assert (other["set"], other["ndcg@100"]) == ("other", "0.5")
    assert (popularity["set"], popularity["row"], popularity["seed"]) == ("small", "popularity", "0")
    run = output / "A" / "small" / "seed0" / "ease"
    measured = json.loads((run / "test.json").read_text())
    assert float(ease["ndcg@100"]) == pytest.approx(measured["metrics"]["ndcg@100"], rel=1e-5)
    assert float(ease["ndcg@100 low"]) == pytest.approx(measured["intervals"]["ndcg@100"][0], rel=1e-5)
    dataset = RunFolder.open(run).description.dataset
    assert (ease["data_sha256"], ease["split_sha256"]) == (dataset.data_sha256, dataset.split_sha256)
    assert int(ease["model_numbers"]) == 7 * 7
    assert ease["command"] == (
        'cllm4rec pretrain --dataset "$DATASET" --output "$RUN" --system ease && '
        'cllm4rec evaluate --run "$RUN"'
    )
    flags = [["--encoder", "/models/one two", "--epochs", "0"], ["--linear", "none"]]
    assert command(flags, 3) == (
        'cllm4rec pretrain --dataset "$DATASET" --output "$RUN" --encoder "$ENCODER" --epochs 0 --seed 3 && '
        'cllm4rec finetune --run "$RUN" --linear none --seed 3 && cllm4rec evaluate --run "$RUN"'
    )
    flags = [["--sequential", "SEQUENTIAL", "--backbone", "/models/gemma"], None]
    assert command(flags, 0) == (
        'cllm4rec pretrain --dataset "$DATASET" --output "$RUN" --sequential "$SEQUENTIAL" '
        '--backbone "$ENCODER" --seed 0 && cllm4rec evaluate --run "$RUN"'
    )
    flags[0] = ["--sequential", "SEQUENTIAL_BSAREC"]
    assert '--sequential "$SEQUENTIAL_BSAREC" --seed 0' in command(flags, 0)
    assert "--backbone tiny" in command([["--backbone", "tiny"], []], 0)
    ndcg, recall = read_lines(file.with_name("differences.csv"))
    assert (ndcg["row"], ndcg["metric"], ndcg["seeds"]) == ("popularity", "ndcg@100", "0")
    expected = float(ease["ndcg@100"]) - float(popularity["ndcg@100"])
    assert float(ndcg["difference"]) == pytest.approx(expected, abs=1e-5)
    assert float(ndcg["low"]) <= float(ndcg["difference"]) <= float(ndcg["high"])
    assert recall["metric"] == "recall@20"
    slices = [line for line in read_lines(file.with_name("slices.csv")) if line["row"] == "EASE"]
    assert len(slices) == len(measured["slices"]) > 2
    for line, each in zip(slices, measured["slices"], strict=True):
        assert (line["by"], line["lowest"], line["highest"], line["n_users"]) == (
            each["by"],
            *(str(each[name]) for name in ("lowest", "highest", "n_users")),
        )
        assert float(line["ndcg@100"]) == pytest.approx(each["metrics"]["ndcg@100"], rel=1e-5)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(
        SystemExit, match=r"runs.csv is no table of results \(no column .*row, .*\): name another folder of"
    ):
        write_lines(file, [])


def test_full_ranking_keeps_rows_of_the_same_data_only(small_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    full_ranking.main([small_set], [0], ["popularity"], output)
    (tmp_path / "moved").mkdir()
    moved = small_set.rename(tmp_path / "moved" / "small")
    run = output / "A" / "small" / "seed0" / "popularity"
    before = run.stat().st_mtime_ns
    full_ranking.main([moved], [0], ["popularity"], output)
    assert run.stat().st_mtime_ns == before, "measured again"
    assert "other code" not in (output / "A" / "small" / "table.md").read_text()
    results = json.loads((output / "A" / "small" / "results.json").read_text())
    results["popularity/0"]["code_sha256"] = "0" * 64
    (output / "A" / "small" / "results.json").write_text(json.dumps(results))
    full_ranking.main([moved], [0], ["popularity"], output)
    assert (
        "other code of the package than the present: popularity."
        in (output / "A" / "small" / "table.md").read_text()
    )
    make(["ml-1m", "--original", str(tmp_path), "--output", str(small_set), "--seeds", "1"])
    (small_set / "seed1").rename(small_set / "seed0")
    with pytest.raises(SystemExit, match="holds popularity/0, measured on another dataset: name another"):
        full_ranking.main([small_set], [0], ["popularity"], output)
    assert run.stat().st_mtime_ns == before


def split_of(dataset: Path) -> SplitDescription:
    """How a dataset folder was split."""
    description = Dataset.load(dataset).description
    assert description is not None
    return description.split


def test_protocols_in_time_order_prepare_the_tables(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(PROTOCOLS["last-shuffled"], reference="ItemKNN, decayed")
    monkeypatch.setitem(PROTOCOLS, "last-shuffled", changed)
    output, folder, rows = tmp_path / "runs", tmp_path / "results", ["ItemKNN, decayed", "popularity"]
    full_ranking.main([small_set], None, rows, output, protocol="last-shuffled", results=folder)
    of_set = output / "last-shuffled" / "small"
    assert all((of_set / f"seed{seed}" / "popularity" / "test.json").is_file() for seed in (0, 1))
    assert "hit_rate@10 |" in (of_set / "table.md").read_text()
    splits = [split_of(of_set / f"seed{seed}" / "dataset") for seed in (0, 1)]
    assert [(split.method, split.shuffle_ties) for split in splits] == [
        ("leave-last-out", 0),
        ("leave-last-out", 1),
    ]
    runs = read_lines(folder / "runs.csv")
    assert {line["protocol"] for line in runs} == {"last-shuffled"}
    assert [line["seed"] for line in runs] == ["0", "0", "1", "1"]
    assert runs[-1]["command"].startswith(
        'cllm4rec prepare --interactions "$DATA"/interactions.tsv.gz --items "$DATA"/items.tsv.gz '
        '--split leave-last-out --shuffle-ties 1 --output "$DATASET" && cllm4rec pretrain'
    )
    assert {line["metric"] for line in read_lines(folder / "differences.csv")} == {"ndcg@10", "hit_rate@10"}
    full_ranking.main([small_set], None, ["popularity"], output, protocol="time", results=folder)
    assert split_of(output / "time" / "small" / "seed0" / "dataset").method == "time"
    assert len(read_lines(folder / "runs.csv")) == 5
    with pytest.raises(SystemExit, match="--tuned has settings that were chosen under protocol A: leave it"):
        full_ranking.main([small_set], None, ["EASE"], output, tuned=tmp_path, protocol="time")


@pytest.mark.slow
def test_processes_share_each_command(
    small_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")  # as users call it
    if torch.cuda.is_available():
        pytest.skip("the processes would need a GPU each")
    rows = ["CLLM4Rec, no pretraining", "popularity"]
    assert full_ranking.main([small_set], [0], rows, tmp_path / "two", processes=2) == []
    echoed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("$ ")]
    assert sum("--nproc-per-node=2 -m cllm4rec." in line for line in echoed) == len(echoed) == 5
    run = RunFolder.open(tmp_path / "two" / "A" / "small" / "seed0" / "cllm4rec-no-pretraining")
    assert [stage.n_processes for stage in run.description.stages.values()] == [2, 2]
    full_ranking.main([small_set], [0], rows[1:], tmp_path / "one")
    two, one = (
        json.loads((tmp_path / output / "A" / "small" / "results.json").read_text())["popularity/0"]
        for output in ("two", "one")
    )
    assert two["metrics"] == one["metrics"]
    assert two["training_cpu_seconds"] > one["training_cpu_seconds"], "of both"


@pytest.mark.slow
def test_rsllm_is_built_on_the_row_sasrec_with_texts_and_compared_with_a_named_row(
    small_set: Path, tmp_path: Path, shared: Path
) -> None:
    output, name = tmp_path / "runs", "RSLLM, stories"
    encoder = [("stories", str(shared / "backbones" / "stories260K"))]
    rows = ["SASRec, texts", "RSLLM, ENCODER"]
    assert not full_ranking.main([small_set], [0], rows, output, encoder, protocol="last", reference=name)
    run = output / "last" / "small" / "seed0" / "rsllm-stories"
    expected = str(run.with_name("sasrec-texts"))
    assert RunFolder.open(run).description.stages["pretrain"].system["sequential"] == expected
    assert f"of {name} minus this" in (run.parents[1] / "table.md").read_text()
    with (run.parents[1] / "results.json").open() as file:
        assert "SEQUENTIAL" in json.load(file)[f"{name}/0"]["flags"][0], "no path of this machine"


def test_a_row_with_an_encoder_is_measured_for_each_of_them(small_set: Path) -> None:
    encoders = {"MiniLM": "models/minilm", "Gemma": "models/gemma"}
    rows = rows_to_measure(["bag, ENCODER", "bag"], encoders, None, small_set, "")
    assert {name: row.flags[0][2:] for name, row in rows.items()} == {
        "bag, MiniLM": ["--encoder", "models/minilm"],
        "bag, Gemma": ["--encoder", "models/gemma"],
        "bag": [],
    }
    assert (rows["bag, MiniLM"].encoder, rows["bag"].encoder) == ("models/minilm", None)
    (row,) = rows_to_measure(["RSLLM, ENCODER, no C_item"], {"Gemma": "g"}, None, small_set, "").items()
    assert row[0] == "RSLLM, Gemma, no C_item"
    assert "--backbone g --epochs 0 --batch-size 4" in " ".join(row[1].flags[0])
    assert row[1].flags[1] is not None
    assert "--alpha" in row[1].flags[1]
    with pytest.raises(SystemExit, match="rows with an encoder need --encoder NAME=MODEL: name a model"):
        rows_to_measure(["bag, ENCODER"], {}, None, small_set, "")
    with pytest.raises(ArgumentTypeError, match="'minilm' is not NAME=MODEL, such as MiniLM=models/minilm"):
        full_ranking.named_model("minilm")


def test_damaged_results_are_named(small_set: Path, tmp_path: Path) -> None:
    of_set = tmp_path / "A" / "small"
    of_set.mkdir(parents=True)
    (of_set / "results.json").write_text("{")
    with pytest.raises(SystemExit, match=r"results.json is damaged: give another --output"):
        full_ranking.main([small_set], [0], ["popularity"], tmp_path)


def documented_commands() -> list[list[str]]:
    """The arguments of each `experiments.full_ranking` in the documentation."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "datasets").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "python -m experiments.full_ranking " in line]
    return [shlex.split(line.partition("experiments.full_ranking ")[2]) for line in lines]


def test_there_is_at_least_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        full_ranking.parsed(["--data", "x", "--output", "y", "--processes", "0"])
    assert "error: --processes is 0: it has to be at least 1" in capsys.readouterr().err


def test_the_documented_commands_are_understood() -> None:
    commands = documented_commands()
    assert len(commands) > 5
    for typed in commands:
        arguments = full_ranking.parsed(typed)
        assert arguments["encoder"] or not any(map(with_encoder, arguments["rows"] or [])), typed
