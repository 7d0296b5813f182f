"""Configuration files: --config fills flags, and odd files are refused in one line."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.commands import flags
from cllm4rec.data.dataset import Dataset
from tests.commands.events import write_events
from tests.support.commands import call, refusal, stage_settings
from tests.support.datasets import description_of


def test_a_config_file_fills_flags_and_typed_flags_win(workspace: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 2\nlearning_rate: 0.005\nmutual: 0.25\nbatch-size: 7\n")
    flags = ("--dataset", workspace / "data", "--output", tmp_path / "run", "--config", config, "--epochs", 1)
    call("pretrain", *flags)
    stage = stage_settings(tmp_path / "run")
    assert stage["training"]["epochs"] == 1
    assert stage["training"]["learning_rate"] == 0.005
    assert stage["training"]["batch_size"] == 7
    assert stage["system"]["mutual"] == 0.25


def test_a_config_file_fills_the_folders_too(workspace: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        json.dumps({"dataset": str(workspace / "data"), "output": str(tmp_path / "run"), "epochs": 1})
    )
    call("pretrain", "--config", config)
    assert (tmp_path / "run" / "pretrain" / "model.safetensors").is_file()


def test_a_config_file_names_the_system(workspace: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("system: popularity\n")
    call("pretrain", "--dataset", workspace / "data", "--output", tmp_path / "run", "--config", config)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["system"] == "popularity"


def test_a_config_file_is_read_once(
    popularity_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("system: popularity\nresume: true\n")
    read, n_reads = flags.read_config, []
    monkeypatch.setattr(flags, "read_config", lambda path: n_reads.append(path) or read(path))
    folders = ("--dataset", popularity_workspace / "data", "--output", tmp_path / "run")
    call("pretrain", *folders, "--config", config)
    assert n_reads == [str(config)]


def test_a_config_file_names_the_preset_of_pretraining(workspace: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("preset: paper\nepochs: 1\ncontent_warmup: 0\n")
    call("pretrain", "--dataset", workspace / "data", "--output", tmp_path / "run", "--config", config)
    stage = stage_settings(tmp_path / "run")
    assert (stage["system"]["start"], stage["training"]["batch_size"]) == ("random", 20)


def test_a_config_file_names_the_preset_of_preparing(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv", rating=lambda user, item: 3 + (user + item) % 3)
    config = tmp_path / "prepare.yaml"
    config.write_text("preset: paper\nk_core: 0\n")
    flags = ("--interactions", tmp_path / "events.csv", "--output", tmp_path / "data")
    call("prepare", *flags, "--config", config)
    rules = [report.rule for report in description_of(Dataset.load(tmp_path / "data")).rules]
    assert "rating > 3" in rules


def test_a_config_file_names_the_run_to_finetune(pretrained: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    config = tmp_path / "finetune.yaml"
    config.write_text(json.dumps({"run": str(tmp_path / "run"), "epochs": 1}))
    call("finetune", "--config", config)
    assert (tmp_path / "run" / "finetune" / "model.json").is_file()


def test_a_config_value_may_begin_with_a_dash(workspace: Path, tmp_path: Path) -> None:
    config = tmp_path / "recommend.yaml"
    config.write_text('users: "-minus"\nk: 2\n')
    call("recommend", "--run", workspace / "run", "--config", config, "--output", tmp_path / "lists.parquet")
    assert set(pl.read_parquet(tmp_path / "lists.parquet")["user_id"]) == {"-minus"}


def test_ids_in_a_config_file_stay_as_they_are_written(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("users: [007, a b]\nk: 3\n")
    flags = ("--config", tmp_path / "run.yaml", "--output", tmp_path / "lists.parquet")
    call("recommend", "--run", workspace / "run", *flags)
    assert pl.read_parquet(tmp_path / "lists.parquet")["user_id"].unique().sort().to_list() == ["007", "a b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("no_such_flag: 3", "no-such-flag"), ("[1, 2]", "flag: value"), ("a: b: c", "not YAML")],
    ids=["unknown key", "a list", "not YAML"],
)
def test_a_config_file_with_a_mistake_is_an_error(
    text: str, message: str, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    flags = ("--dataset", workspace / "data", "--output", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert message in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


def test_a_key_that_is_no_flag_is_refused_whatever_its_value(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("usres: false\n")
    assert "usres" in refusal(
        "recommend", "--run", workspace / "run", "--all", "--config", tmp_path / "run.yaml"
    )


def test_a_missing_config_file_is_an_error(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: there is no such file"):
        call("evaluate", "--run", workspace / "run", "--config", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs: [[1]]", "epochs is neither a value nor a list of values"),
        (b"epochs: {a: 1}", "epochs is neither a value nor a list of values"),
        (b"epochs:\n  - {a: 1}", "epochs is neither a value nor a list of values"),
        (b"<<: {epochs: 1}", "<< is neither a value nor a list of values"),
        (b"1: 2", "--1 is not a flag of this command"),
        (b"- epochs: 1", "expected lines of 'flag: value'"),
        (b"epochs", "expected lines of 'flag: value'"),
        (b"epochs: 2020-01-01", "argument --epochs: invalid int value: '2020-01-01'"),
        (b"epochs: [1, 2]", "argument --epochs: invalid int value: '1,2'"),
        (b"epochs: !!python/object/apply:os.getenv [HOME]", "argument --epochs: invalid int value: 'HOME'"),
        (b"epochs: &a [*a]", "not YAML"),
        (b"? [a]\n: b", "not YAML"),
        (b"epochs: 1\n---\nepochs: 2", "not YAML"),
        (b"epochs: \xff", "not YAML"),
        (b"epochs: \0", "not YAML"),
        (b"epochs: " + b"[" * 100_000, "not YAML"),
        (b"#" * (1 << 21), "2,097,152 bytes are more than any configuration has"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "b is neither a value nor a list of values"),
    ],
)
def test_an_odd_configuration_is_refused_in_one_line(
    content: bytes, message: str, popularity_workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    flags = ("--output", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert message in refusal("pretrain", "--dataset", popularity_workspace / "data", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsystem: popularity\n", b"", b"# nothing\n"])
def test_a_configuration_may_begin_with_a_byte_order_mark_and_may_be_empty(
    content: bytes, popularity_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    flags = ("--output", tmp_path / "new", "--config", tmp_path / "run.yaml", "--dry-run")
    call("pretrain", "--dataset", popularity_workspace / "data", *flags)
    assert capsys.readouterr().out.startswith("popularity" if b"popularity" in content else "cllm4rec")
