"""Interrupted training of RSLLM and of its sequential recommender is resumed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cllm4rec import finetune, pretrain
from cllm4rec.commands import stages
from cllm4rec.training.run_folder import RunFolder


@contextmanager
def stopped_at(check: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training is stopped at a check for stop requests, counted from 0."""
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == check)
        yield


def test_a_sequential_recommender_trained_with_other_settings_is_refused(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["--dataset", str(trained_folder / "data"), "--output", str(tmp_path / "run")]
    flags = ["--system", "rsllm", *paths, "--max-minutes", "9"]
    with stopped_at(5, monkeypatch), pytest.raises(SystemExit):
        pretrain.main(flags)
    inner = RunFolder(tmp_path / "run" / "sasrec")
    # the limit is that of each training
    assert (inner.description.under_way["pretrain"].training or {})["max_minutes"] == 9
    with pytest.raises(ValueError, match="interrupted pretrain: give --resume"):
        pretrain.main(flags)
    inner.resume_file("pretrain").remove()
    with pytest.raises(ValueError, match="was trained with --seed 0, not 5"):
        pretrain.main([*flags, "--seed", "5"])


def test_training_stopped_in_the_sequential_recommender_is_resumed(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ["--dataset", str(trained_folder / "data"), "--output", str(tmp_path / "run")]
    flags = ["--system", "rsllm", *paths, "--title-words", "4", "--epochs", "1", "--seed", "3"]
    with stopped_at(5, monkeypatch), caplog.at_level("INFO"), pytest.raises(SystemExit):
        pretrain.main(flags)
    assert f"resume with: cllm4rec pretrain --output {tmp_path / 'run'} --resume" in caplog.text
    with caplog.at_level("INFO"):
        pretrain.main(["--output", str(tmp_path / "run"), "--resume"])
    n_base_epochs = len(RunFolder(tmp_path / "run" / "sasrec").metrics())
    assert sum(line.startswith("sasrec pretrain epoch ") for line in caplog.messages) == n_base_epochs
    assert sum(line.startswith("pretrain epoch ") for line in caplog.messages) == 1
    for name in ("model.safetensors", "sequential/model.safetensors"):
        resumed, expected = (folder / "run" / "pretrain" / name for folder in (tmp_path, trained_folder))
        assert resumed.read_bytes() == expected.read_bytes()


def test_a_resumed_finetuning_gives_the_weights_of_an_uninterrupted_one(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "finetune")
    with stopped_at(1, monkeypatch), pytest.raises(SystemExit):
        finetune.main(["--run", str(tmp_path / "run"), "--epochs", "1"])
    finetune.main(["--run", str(tmp_path / "run"), "--resume"])
    files = [folder / "run" / "finetune" / "model.safetensors" for folder in (tmp_path, trained_folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
