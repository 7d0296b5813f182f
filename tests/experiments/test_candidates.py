"""`experiments.candidates` on small tables: rows, parts, what is refused, and what an interruption leaves."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.sequential.config import SequentialConfig
from experiments import candidate_runs, candidates, prepared
from experiments.candidate_runs import SYSTEMS, Plan
from experiments.candidates import summary
from experiments.commands import Cost
from experiments.models import described_model
from tests.support.experiments import Calls, run_here

SEQUENTIAL = ["sequential system"]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Commands run in the process of the test, and are listed. Sequential systems are trained briefly."""
    short = replace(SequentialConfig.training["pretrain"], epochs=1)
    monkeypatch.setitem(SequentialConfig.training, "pretrain", short)
    return run_here(monkeypatch, Cost(1.0, 1.0, 1.0), candidate_runs, prepared)


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """Events and items of 20 users, and three rows that are held out."""
    world = taste_world(0, n_users=20, n_items=40, n_events=6)
    for name, table in (("interactions", world.events), ("items", world.items)):
        text = table.write_csv(separator="\t", quote_style="never")
        (tmp_path / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    users, items = (world.events[name].unique(maintain_order=True) for name in ("user_id", "item_id"))
    rows = [
        (part, users[index], " ".join(items[index : index + 3]), items[index + 3])
        for index, part in enumerate(["val", "test", "test"])
    ]
    columns = ["split", "user_id", "history_items", "target_item"]
    split = tmp_path / "held_out.tsv"
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(split, separator="\t")
    names = ("interactions", "items")
    return {name: tmp_path / f"{name}.tsv.gz" for name in names} | {"split": split}


def plan(*rows: str) -> Plan:
    return Plan(["sasrec-texts"], "1x64", 3, 1, (1, 1), rows or SEQUENTIAL)


def systems(output: Path) -> list[str]:
    """The first two cells of the lines of the table."""
    lines = (output / "table.md").read_text().splitlines()[2:]
    return ["/".join(cell.strip() for cell in line.split("|")[1:3]) for line in lines]


def test_the_rows_of_a_split(tables: dict[str, Path], tmp_path: Path, calls: Calls) -> None:
    rows = (
        *SEQUENTIAL,
        "SASRec, ids",
        "RSLLM",
        "RSLLM, unified prompts",
        "RSLLM, soft tokens",
        "RSLLM, no C_item",
        "RSLLM, language model alone",
        "RSLLM, unified prompts, constrained generation",
        "backbone before training, likelihood of titles",
    )
    output = tmp_path / "runs"
    candidates.main(**tables, seeds=[0], plan=plan(*rows), output=output)
    assert systems(output) == [f"{name}/seed0" for name in rows]
    trained = [[str(each) for each in call] for call in calls if call[0] in ("pretrain", "finetune")]
    untrained = next(call for call in trained if call[call.index("--output") + 1].endswith("untrained"))
    assert [untrained[untrained.index(flag) + 1] for flag in ("--epochs", "--prompt")] == ["0", "text"]
    forms = [call[call.index("--prompt") + 1] for call in trained if call[0] == "finetune"]
    assert forms == ["unified", "text", "ids", "text"]
    assert [call[call.index("--alpha") + 1] for call in trained if "--alpha" in call] == ["0"]
    of_rsllm = [call for call in trained if call[0] == "finetune" or "rsllm" in call]
    assert not any("--length" in call for call in of_rsllm), "the package's own"
    batches = [call[call.index("--batch-size") + 1] for call in of_rsllm if call is not untrained]
    assert batches == ["4"] * 5
    assert all("--item-text" not in call for call in trained if str(output / "seed0/sasrec-ids") in call)
    n = len(calls)
    candidates.main(**tables, seeds=[0], plan=plan(*rows), output=output)
    assert not any(call[0] == "evaluate" for call in calls[n:]), "measured again"


def test_folds_and_what_belongs_to_other_settings(tables: dict[str, Path], tmp_path: Path) -> None:
    output: Path = tmp_path / "folds"
    of_folds: dict[str, Any] = {**tables, "output": output, "folds": 2}
    for changed, what in (
        ({"folds": 1}, "--folds 1: give 2 to 20"),
        ({"folds": 5, "only": ["fold9"]}, "--only fold9: the parts are fold0, fold1, fold2, fold3, fold4"),
    ):
        with pytest.raises(SystemExit, match=what):
            candidates.main(**of_folds | changed, seeds=[0], plan=plan())
        assert not output.exists()
    candidates.main(**of_folds, seeds=[0], plan=plan())
    assert systems(output) == ["sequential system/fold0, fold1"]
    assert pl.read_parquet(output / "fold0" / "sequential-scores.parquet").height == 10
    for changed, what in (
        ({"plan": replace(plan(), candidates=4)}, "another candidates: 3, not 4; give another"),
        ({"folds": 3}, "another folds: 2, not 3"),
        ({"seeds": [7]}, "another seed: 0, not 7"),
        ({"only": ["fold2"]}, "--only fold2: the parts are fold0, fold1"),
        ({"items": tmp_path / "absent.tsv"}, "--items .*absent.tsv: there is no such file"),
    ):
        with pytest.raises(SystemExit, match=what):
            candidates.main(**{**of_folds, "seeds": [0], "plan": plan(), **changed})
    other: dict[str, Any] = {**of_folds, "output": tmp_path / "other", "seeds": [0], "against": output}
    with pytest.raises(SystemExit, match="--against .* has another draws: 1, not 2"):
        candidates.main(**other, plan=replace(plan(), draws=2))
    with pytest.raises(SystemExit, match=r"--against .* has no plan\.json: give the output of an"):
        candidates.main(**{**other, "against": tmp_path}, plan=plan())
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(SystemExit, match=r"plan\.json is damaged: give another --against"):
        candidates.main(**{**other, "against": tmp_path}, plan=plan())
    assert not (tmp_path / "other").exists()
    candidates.main(**other, plan=plan())
    table = (tmp_path / "other" / "table.md").read_text()
    assert table.splitlines()[-1].split("|")[-2].strip() == "+0.0000 [+0.0000, +0.0000]"
    tables["interactions"].write_bytes(b"of another data set")
    with pytest.raises(SystemExit, match="has results with another --interactions"):
        candidates.main(**of_folds, seeds=[0], plan=plan())


def test_the_table_keeps_what_other_calls_measured(tables: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "folds"
    for part, row in (("fold0", "sequential system"), ("fold1", "SASRec, ids"), ("fold1", *SEQUENTIAL)):
        candidates.main(**tables, seeds=[0], plan=plan(row), output=output, folds=2, only=[part])
    assert systems(output) == ["sequential system/fold0, fold1", "SASRec, ids/fold1"]
    for seed in (0, 1):
        candidates.main(**tables, seeds=[seed], plan=plan(), output=tmp_path / "seeds")
    assert systems(tmp_path / "seeds") == ["sequential system/seed0, seed1"]


def test_prompts_that_name_candidates_are_of_rsllm_alone(tables: dict[str, Path], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {**tables, "seeds": [0], "output": tmp_path / "runs"}
    for row in ("sequential system", "RSLLM, unified prompts, constrained generation", "SASRec, ids"):
        candidates.main(**arguments, plan=plan(row))
    with pytest.raises(
        SystemExit, match="another form of RSLLM's prompts: with candidates, not without candidates; give"
    ):
        candidates.main(**arguments, plan=plan("RSLLM"))
    settings = json.loads((tmp_path / "runs" / "plan.json").read_text())
    del settings["batch size"]
    (tmp_path / "runs" / "plan.json").write_text(json.dumps(settings))
    with pytest.raises(SystemExit, match="another batch size: not recorded, not 4; give another"):
        candidates.main(**arguments, plan=plan("RSLLM, unified prompts, constrained generation"))
    candidates.main(**arguments, plan=plan())
    (tmp_path / "runs" / "plan.json").write_text("")
    with pytest.raises(SystemExit, match=r"plan.json is damaged: give another --output"):
        candidates.main(**arguments, plan=plan())


def test_rsllm_is_built_on_the_sequential_system_that_is_best_on_validation_events(
    tables: dict[str, Path], tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality: dict[str, float | None] = dict(zip(SYSTEMS, (0.1, 0.3, 0.2, 0.3), strict=True))
    monkeypatch.setattr(candidate_runs, "best_validation", lambda run: quality[run.name])
    arguments: dict[str, Any] = {**tables, "seeds": [0], "output": tmp_path / "runs"}
    best = replace(plan("RSLLM", "sequential system"), sequential=[*SYSTEMS])
    candidates.main(**arguments, plan=best)
    part = tmp_path / "runs" / "seed0"
    stage_1 = next([*call] for call in calls if part / "stage-1" in call)
    assert stage_1[stage_1.index("--sequential") + 1] == part / "sasrec-texts"
    below = (tmp_path / "runs" / "table.md").read_text().splitlines()[-1]
    assert below == "Sequential system, by validation events: sasrec-texts (seed0)."
    evaluated = [call[call.index("--run") + 1] for call in calls if call[0] == "evaluate"]
    assert evaluated == [part / "text", part / "sasrec-texts"]
    of_two = replace(best, sequential=["bsarec-ids", "sasrec-ids", "bsarec-ids"])
    assert of_two.settings({}, 0, 0)["sequential"] == "sasrec-ids, bsarec-ids"
    assert candidate_runs.base_of(part, of_two) == "bsarec-ids"
    n = len(calls)
    tables["split"].write_text(tables["split"].read_text().replace("val\t", "test\t"))
    without = arguments | {"output": tmp_path / "other"}
    with pytest.raises(SystemExit, match="has no validation rows to choose by: name one --sequential"):
        candidates.main(**without, plan=best)
    assert len(calls) == n, "found before anything is trained"
    candidates.main(**without, plan=plan())
    other = tmp_path / "rows.tsv"
    other.write_text("split\ntest\nvalid\n")
    candidates.check_validation_rows(other)  # as prepare reads it


def test_a_corrected_table_is_not_another_one(tables: dict[str, Path], tmp_path: Path) -> None:
    good = tables["split"].read_text()
    for folds in (0, 2):
        arguments: dict[str, Any] = {**tables, "seeds": [0], "output": tmp_path / f"runs{folds}"}
        tables["split"].write_text(good.replace("val\t", "vol\t").replace("\ti", "\tno such item i", 1))
        tables["items"].rename(tmp_path / "good")
        tables["items"].write_text("no such column\n1\n")
        with pytest.raises(SystemExit):
            candidates.main(**arguments, folds=folds, plan=plan())
        (tmp_path / "good").rename(tables["items"])
        tables["split"].write_text(good)
        candidates.main(**arguments, folds=folds, plan=plan())
        assert systems(tmp_path / f"runs{folds}")


def test_a_part_whose_systems_are_being_trained_is_not_named_below_the_table(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    best = replace(plan(), sequential=["sasrec-ids", "sasrec-texts"])
    arguments: dict[str, Any] = {**tables, "plan": best, "output": tmp_path / "runs"}
    candidates.main(**arguments, seeds=[0])
    shutil.copytree(tmp_path / "runs" / "seed0", tmp_path / "runs" / "seed1")
    (tmp_path / "runs" / "seed1" / "sasrec-texts" / "run.json").unlink()
    candidates.main(**arguments, seeds=[0, 1], only=["seed0"])
    assert (tmp_path / "runs" / "table.md").read_text().splitlines()[-1].endswith(" (seed0).")


def test_folds_without_validation_rows_are_refused_before_anything_is_trained(
    tables: dict[str, Path], tmp_path: Path, calls: Calls
) -> None:
    best = replace(plan(), sequential=["sasrec-ids", "sasrec-texts"])
    with pytest.raises(SystemExit, match=r"fold\d+.split.tsv has no validation rows to choose by: name one"):
        candidates.main(**tables, seeds=[0], plan=best, output=tmp_path / "runs", folds=2)
    assert not any(call[0] == "pretrain" for call in calls)


def test_the_best_validation_metric_of_a_run(tables: dict[str, Path], tmp_path: Path) -> None:
    candidates.main(**tables, seeds=[0], plan=plan("SASRec, ids"), output=tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs" / "seed0").iterdir() if path.is_dir()] == ["sasrec-ids"]
    file = tmp_path / "runs" / "seed0" / "sasrec-ids" / "metrics.jsonl"
    (line,) = map(json.loads, file.read_text().splitlines())
    lines = [line | {"epoch": n, "validation": value} for n, value in enumerate([0.1, 0.3, None, 0.2])]
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert candidate_runs.best_validation(file.parent) == 0.3
    file.unlink()
    assert candidate_runs.best_validation(file.parent) is None


def test_an_interrupted_copy_of_stage_1_is_made_again(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: Path, target: Path, **_: Any) -> None:
        shutil.copy(source / "run.json", target)
        raise KeyboardInterrupt

    arguments: dict[str, Any] = {**tables, "seeds": [0], "plan": plan("RSLLM"), "output": tmp_path / "runs"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(candidate_runs.shutil, "copytree", interrupted)
        candidates.main(**arguments)
    candidates.main(**arguments)
    assert systems(tmp_path / "runs") == ["RSLLM/seed0"]


@pytest.mark.parametrize(
    ("flag", "setting"), [("candidates", 1), ("draws", 0), ("epochs", (0, -1))], ids=lambda value: str(value)
)
def test_numbers_with_which_nothing_can_be_measured_are_refused_first(
    flag: str, setting: Any, tables: dict[str, Path], tmp_path: Path, calls: Calls
) -> None:
    changed = replace(plan(), **{flag: setting})
    with pytest.raises(SystemExit, match=rf"error: --{flag} -?\d: give at least \d"):
        candidates.main(**tables, seeds=[0], plan=changed, output=tmp_path / "runs")
    assert not calls and not (tmp_path / "runs").exists()


def test_a_backbone_that_cannot_be_loaded_is_refused_first(
    tables: dict[str, Path], tmp_path: Path, calls: Calls
) -> None:
    wrong = replace(plan("RSLLM"), backbone=str(tmp_path / "model"))
    with pytest.raises(ValueError, match="there is no such folder"):
        candidates.main(**tables, seeds=[0], plan=wrong, output=tmp_path / "runs")
    assert not calls and not (tmp_path / "runs").exists()


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    first, second = (tmp_path / name / "model" for name in ("first", "second"))
    first.mkdir(parents=True)
    (first / "config.json").write_text("{}")
    shutil.copytree(first, second)
    assert described_model(str(first)) == described_model(str(second))
    (second / "config.json").write_text("[]")
    assert described_model(str(first)) != described_model(str(second))
    assert described_model("tiny") == "tiny"


def test_means_and_differences_are_over_the_parts_that_rows_have() -> None:
    def hits(*values: float) -> pl.DataFrame:
        return pl.DataFrame({"hit_ratio@1": values, "valid_ratio": [1.0] * len(values)})

    results = {
        "sequential system": {"fold0": hits(0.0, 0.5), "fold1": hits(1.0)},
        "RSLLM": {"fold0": hits(0.5, 1.0)},
    }
    sequential, rsllm = summary(results, folds=True).splitlines()[2:]
    cells = [cell.strip() for cell in sequential.split("|")[1:-1]]
    assert cells[1:4] == ["fold0, fold1", "3", "0.5000"]
    assert cells[-1] == "+0.5000 [+0.5000, +0.5000]", "of the two rows of fold0"
    assert [cell.strip() for cell in rsllm.split("|")[1:-1]][1:4] == ["fold0", "2", "0.7500"]
    others = {"RSLLM": {"fold0": hits(0.5, 0.5), "fold1": hits(0.5)}}
    sequential, rsllm = summary(results, folds=True, against=others).splitlines()[2:]
    assert sequential.split("|")[-2].strip() == ""
    assert rsllm.split("|")[-2].strip() == "+0.2500 [+0.0000, +0.5000]", "0 and .5, of fold0 alone"
    seeds = {"RSLLM": {"seed0": hits(0.0, 1.0), "seed1": hits(1.0, 1.0)}}
    (line,) = summary(seeds, folds=False).splitlines()[2:]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1:4] == ["seed0, seed1", "2", "0.7500"], "two rows, each the mean over two seeds"
