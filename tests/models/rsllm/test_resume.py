"""Interrupted training of RSLLM and of its sequential recommender is resumed."""

import shutil
from pathlib import Path

import pytest

from cllm4rec import finetune, pretrain
from cllm4rec.training.checkpoint import RunFolder


def test_the_sequential_recommender_of_an_earlier_try_is_not_taken_for_another(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cllm4rec import stages

    given = [
        "--system",
        "rsllm",
        "--dataset",
        str(place / "data"),
        "--output",
        str(tmp_path / "run"),
        "--max-minutes",
        "9",
    ]
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 5)
        with pytest.raises(SystemExit):
            pretrain.main(given)
    inner = RunFolder(tmp_path / "run" / "sasrec")
    assert inner.about["under_way"]["pretrain"]["training"]["max_minutes"] == 9, (
        "the limit is that of each training"
    )
    with pytest.raises(ValueError, match="interrupted pretrain: go on with --resume"):
        pretrain.main(given)
    inner.state("pretrain").remove()
    with pytest.raises(ValueError, match="was trained with --seed 0, not 5"):
        pretrain.main([*given, "--seed", "5"])


def test_a_training_stopped_in_the_sequential_recommender_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cllm4rec import stages

    given = ["--dataset", str(place / "data"), "--output", str(tmp_path / "run"), "--title-words", "4"]
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 5)
        with caplog.at_level("INFO"), pytest.raises(SystemExit):
            pretrain.main(["--system", "rsllm", *given, "--epochs", "1", "--seed", "3"])
    assert f"python -m cllm4rec.pretrain --output {tmp_path / 'run'} --resume" in caplog.text
    pretrain.main(["--output", str(tmp_path / "run"), "--resume"])
    for name in ("model.safetensors", "sequential/model.safetensors"):
        assert (tmp_path / "run" / "pretrain" / name).read_bytes() == (
            place / "run" / "pretrain" / name
        ).read_bytes()


def test_a_finetuning_that_was_stopped_ends_where_it_would_have_ended(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cllm4rec import stages

    shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "finetune")
    asked = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(stages.StopRequest, "__call__", lambda self: next(asked) == 1)
        with pytest.raises(SystemExit):
            finetune.main(["--run", str(tmp_path / "run"), "--epochs", "1"])
    finetune.main(["--run", str(tmp_path / "run"), "--resume"])
    both = [folder / "run" / "finetune" / "model.safetensors" for folder in (tmp_path, place)]
    assert both[0].read_bytes() == both[1].read_bytes()
