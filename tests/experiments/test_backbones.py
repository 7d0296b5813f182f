"""Backbones compared: rows that are kept and refused, equal settings, random weights, the tables."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import experiments.backbone_rows as backbone_rows
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.records import MetricsLine
from experiments.backbone_rows import Row
from experiments.backbone_tables import epochs_cell
from experiments.backbones import MAX_MINUTES, VARIANTS, main, stage_flags
from experiments.commands import Cost
from experiments.random_backbone import save_random_backbone
from tests.support.backbones import save_backbone, small_dataset
from tests.support.experiments import Calls, names, run_here


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the dataset folder of seed 0, as a recipe writes it."""
    small_dataset().save(tmp_path / "data" / "seed0")
    return tmp_path / "data"


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return save_backbone(tmp_path / "backbone", "llama")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Commands run in this process, and are listed."""
    return run_here(monkeypatch, Cost(seconds=36.0, cpu_seconds=72.0, peak_mib=512.0), backbone_rows)


def compare(backbone: Path, data: Path, output: Path, *variants: str, minutes: float = 5.0) -> None:
    main(backbone, data, output, list(variants), (minutes, minutes), quick=True)


def test_the_large_backbones_are_trained_alike() -> None:
    """The table compares weights and adapters, so nothing else may differ."""
    flags = {name: stage_flags(name, MAX_MINUTES, quick=False) for name in VARIANTS}
    assert flags["frozen"] == flags["random"]
    assert flags["frozen"]["finetune"] == flags["lora"]["finetune"]
    assert [*flags["lora"]["pretrain"]] == [
        "lora" if flag == "frozen" else flag for flag in flags["frozen"]["pretrain"]
    ]
    for of_variant in flags.values():
        for of_stage, minutes in zip(("pretrain", "finetune"), MAX_MINUTES, strict=True):
            assert float(of_variant[of_stage][of_variant[of_stage].index("--max-minutes") + 1]) == minutes


def test_random_weights_have_the_architecture_and_the_words_of_the_pretrained_model(
    backbone: Path, tmp_path: Path
) -> None:
    folder = save_random_backbone(backbone, tmp_path / "random", seed=3)
    pretrained, drawn = (load_backbone(BackboneConfig(str(path)))[0].model for path in (backbone, folder))
    before, after = pretrained.state_dict(), drawn.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    matrices = [name for name, tensor in before.items() if tensor.dim() == 2]
    assert len(matrices) > 10
    assert not any(torch.equal(before[name], after[name]) for name in matrices)
    words, same_words = (
        AutoTokenizer.from_pretrained(path, trust_remote_code=False) for path in (backbone, folder)
    )
    assert words("a user has interacted")["input_ids"] == same_words("a user has interacted")["input_ids"]


def test_random_weights_are_a_function_of_the_seed_in_the_format_of_the_pretrained(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "backbone")
    AutoModelForCausalLM.from_pretrained(
        backbone, dtype=torch.bfloat16, trust_remote_code=False
    ).save_pretrained(backbone)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    files = [
        save_random_backbone(backbone, tmp_path / name, seed) / "model.safetensors"
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    one, again, two = (file.read_bytes() for file in files)
    assert one == again != two
    assert len(one) < 0.6 * 4 * sum(
        p.numel() for p in load_backbone(BackboneConfig(str(backbone)))[0].parameters()
    )
    assert torch.equal(torch.get_rng_state(), state), "draws of the caller stay as they were"


def test_a_model_of_random_weights_that_exists_is_left_alone(backbone: Path, tmp_path: Path) -> None:
    folder = save_random_backbone(backbone, tmp_path / "random", seed=1)
    before = (folder / "model.safetensors").read_bytes()
    save_random_backbone(backbone, folder, seed=2)
    assert (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="there is no such folder"):
        save_random_backbone(tmp_path / "nowhere", tmp_path / "other", seed=1)
    assert not (tmp_path / "other").exists()


def test_an_ended_stage_is_not_run_again_and_an_interrupted_one_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, cost = tmp_path / "row.json", Cost(1.5, 2.5, 3.5)

    def interrupted(*_: object) -> Cost:
        raise SystemExit("killed")

    monkeypatch.setattr(backbone_rows, "run_command", lambda *_: cost)
    Row.begin(file, {"a": 1}).run_stage("pretrain")
    monkeypatch.setattr(backbone_rows, "run_command", interrupted)
    row = Row.begin(file, {"a": 1})
    row.run_stage("pretrain")  # which has ended
    with pytest.raises(SystemExit, match="killed"):
        row.run_stage("finetune")
    monkeypatch.setattr(backbone_rows, "run_command", lambda *_: cost)
    row = Row.begin(file, {"a": 1})
    assert not row.is_complete
    row.run_stage("finetune")
    row.run_stage("evaluate")
    stages = Row.read(file).stages
    assert {name: each.calls for name, each in stages.items()} == {
        "pretrain": 1,
        "finetune": 2,
        "evaluate": 1,
    }
    assert all(each.cost == cost for each in stages.values()) and Row.read(file).is_complete


@pytest.mark.parametrize(
    ("qualities", "seconds", "settings", "cell"),
    [
        ([0.1, 0.2, 0.3], 1, {}, "3 (3), time limit"),
        ([None, 0.1, 0.2, 0.3], 1, {}, "4 (4), time limit"),
        ([0.1, 0.2, 0.3, 0.4], 1, {}, "4 (4)"),
        ([None, 0.1, 0.2, 0.3, 0.4], 1, {}, "5 (5)"),
        ([0.1, 0.2, 0.3, 0.4], 15, {}, "4 (4), time limit"),
        ([0.2, 0.1, 0.1], 1, {}, "3 (1)"),
        ([0.2, 0.1], 1, {}, "2 (1), time limit"),
        ([0.2, None, 0.1], 1, {"validate_every": 2}, "3 (1)"),
        ([0.1, 0.2, 0.3], 1, {"max_minutes": None}, "3 (3)"),
    ],
    ids=[
        *("before the last epoch", "after warm-up", "all epochs", "all after warm-up", "in the last epoch"),
        *("patience", "before patience", "patience with epochs that are not validated", "no limit"),
    ],
)
def test_a_stage_that_the_time_limit_ended_is_marked(
    qualities: list[float | None], seconds: float, settings: dict[str, Any], cell: str
) -> None:
    training = TrainConfig(**{"epochs": 4, "patience": 2, "max_minutes": 1.0, **settings})
    lines = []
    for epoch, quality in enumerate(qualities):
        best = quality is not None and quality > max((line.validation or 0.0 for line in lines), default=0.0)
        lines.append(MetricsLine(epoch, {}, {}, {}, quality, seconds, 1.0, best, stage="finetune"))
    assert epochs_cell(lines, training) == cell


@pytest.mark.parametrize("changed", [{"a": 2}, {"a": 1, "b": None, "c": 3}, {}])
def test_a_row_of_other_conditions_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    file = tmp_path / "row.json"
    file.write_text(json.dumps({"conditions": {"a": 1}, "stages": {}}))
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="name another --output"):
        Row.begin(file, changed)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_all_variants_are_trained_measured_and_compared(
    backbone: Path, data: Path, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    compare(backbone, data, output, *VARIANTS)
    assert names(calls) == ["pretrain", "finetune", "evaluate"] * len(VARIANTS)
    table = (output / "tables.md").read_text()
    assert table in capsys.readouterr().out
    for name in VARIANTS:
        measured = json.loads((output / name / "test.json").read_text())
        low, high = measured["intervals"]["ndcg@100"]
        assert f"{measured['metrics']['ndcg@100']:.4f} [{low:.4f}, {high:.4f}]" in table
    rows = {
        cells[0]: cells[1:]
        for line in table.splitlines()
        if line.startswith("|") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 4
    }
    assert {name: rows[name][0] for name in VARIANTS} == {
        **{"tiny": "all", "frozen": "ID tables"},
        **{"lora": "ID tables, adapters", "random": "ID tables"},
    }
    for name in VARIANTS:
        pretrained, finetuned, hours, cpu_hours, *speeds, peak, scoring = rows[name][1:]
        assert (hours, cpu_hours, peak) == ("0.02", "0.04", "0.50"), "of two stages; the larger peak"
        assert finetuned == "1 (1)" and pretrained.endswith("(2)"), "content warm-up is an epoch more"
        assert all(float(speed.replace(",", "")) > 0 for speed in speeds) and float(scoring) >= 0
    assert "frozen minus random" in table and "tiny minus frozen" in table
    assert "at least" not in table
    assert "time limit" not in table
    compare(backbone, data, output, *VARIANTS)
    assert len(calls) == 3 * len(VARIANTS), "nothing is run again"
    frozen, drawn = (json.loads((output / name / "run.json").read_text()) for name in ("frozen", "random"))
    assert frozen["stages"]["pretrain"]["system"]["backbone"] == str(backbone)
    assert drawn["stages"]["pretrain"]["system"]["backbone"] == str(output / "random-weights")


@pytest.mark.slow
def test_a_killed_stage_resumes_and_the_table_says_so(
    backbone: Path, data: Path, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, run = tmp_path / "output", backbone_rows.run_command

    def killed(command: str, *arguments: object) -> Cost:
        if command == "finetune":
            raise SystemExit("killed")
        return run(command, *arguments)

    monkeypatch.setattr(backbone_rows, "run_command", killed)
    with pytest.raises(SystemExit, match="killed"):
        compare(backbone, data, output, "frozen")
    monkeypatch.setattr(backbone_rows, "run_command", run)
    compare(backbone, data, output, "frozen")
    assert names(calls) == ["pretrain", "finetune", "evaluate"]
    assert "at least 0.02" in (output / "tables.md").read_text()


def test_what_cannot_be_compared_is_refused_before_training(
    backbone: Path, data: Path, tmp_path: Path, calls: Calls
) -> None:
    output = tmp_path / "output"
    with pytest.raises(SystemExit, match="no folder seed0"):
        compare(backbone, tmp_path, output, "tiny")
    with pytest.raises(SystemExit, match="not the folder of a model"):
        compare(data, data, output, "tiny")
    assert not output.exists()
    output.mkdir()
    (output / "lora.json").write_text(json.dumps({"conditions": {"threads": "7"}, "stages": {}}))
    with pytest.raises(
        SystemExit, match=r"lora\.json was measured with backbone null, not .*another --output"
    ):
        compare(backbone, data, output, "tiny")
    assert not calls


@pytest.mark.slow
def test_gemma_frozen_for_a_moment(gemma: Path, data: Path, tmp_path: Path, calls: Calls) -> None:
    compare(gemma, data, tmp_path / "output", "frozen", minutes=0.1)
    assert "| frozen " in (tmp_path / "output" / "tables.md").read_text()
