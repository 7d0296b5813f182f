"""A frozen backbone may move. It is recognised by its hashes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizer

from cllm4rec.models import load
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.fingerprints import config_sha256, tokenizer_sha256
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.training import loop
from cllm4rec.training.resume import Stopped
from tests.support.backbones import (
    edit,
    fingerprint,
    pretrained_run,
    save_backbone,
    set_values,
    small_dataset,
)
from tests.support.commands import call
from tests.support.tables import refused


@pytest.mark.parametrize(
    "flags", [[], ["--system", "rsllm", "--hard", 0, "--negatives", 4]], ids=["cllm4rec", "rsllm"]
)
def test_a_backbone_that_moved_is_found_by_its_flag_and_known_by_its_hash(
    flags: list[object], folder: Path, data: Path, tmp_path: Path
) -> None:
    run = pretrained_run(data, folder, tmp_path / "run", *flags)
    sha256 = fingerprint(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    other = save_backbone(tmp_path / "other", dropout=0.1, seed=1)
    users = ["--all", "--k", 3, "--output", tmp_path / "lists.csv"]
    commands: list[list[object]] = [["evaluate"], ["recommend", *users], ["finetune", "--epochs", 1]]
    for command, *rest in commands:
        typed = [str(command), "--run", run, *rest]
        line = refused(lambda typed=typed: call(*typed))
        assert str(folder) in line
        assert "there is no such folder" in line
        assert f"SHA-256 {sha256} by --backbone" in line
        assert line.count("--backbone") == 1, "one piece of advice"
        line = refused(lambda typed=typed: call(*typed, "--backbone", other))
        assert f"the weights of backbone {str(other)!r} are not those this run was trained with" in line
        assert sha256 in line
        call(*typed, "--backbone", moved)
    with pytest.raises(ValueError, match=sha256):
        load(run)
    assert load(run, backbone=moved).moved == {"backbone": str(moved)}


def test_a_backbone_that_moved_is_found_for_the_run_to_compare_with(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    """Two runs have the backbone; others have none, another that has not moved, and a tuned one."""
    other_backbone = save_backbone(tmp_path / "other backbone", dropout=0.1, seed=1)
    run = pretrained_run(data, folder, tmp_path / "run")
    runs = {
        "same": pretrained_run(data, folder, tmp_path / "same", "--seed", 1),
        "other": pretrained_run(data, other_backbone, tmp_path / "other"),
        "tuned": pretrained_run(data, Path("tiny"), tmp_path / "tuned"),
        "none": tmp_path / "none",
    }
    call("pretrain", "--dataset", data, "--output", runs["none"], "--system", "popularity")
    moved = folder.rename(tmp_path / "elsewhere")
    for other in runs.values():
        for pair in (("--run", run, "--against", other), ("--run", other, "--against", run)):
            assert "there is no such folder" in refused(lambda pair=pair: call("evaluate", *pair))
        call("evaluate", "--run", run, "--against", other, "--backbone", moved)
    for name in ("same", "tuned", "none"):
        call("evaluate", "--run", runs[name], "--against", run, "--backbone", moved)


def rotate_vocabulary(folder: Path) -> None:
    """Give every token but the end token the number of the next."""

    def rotate(content: dict[str, Any]) -> None:
        tokens = [token for token, _ in sorted(content["model"]["vocab"].items(), key=lambda pair: pair[1])]
        rotated = [tokens[0], *tokens[2:], tokens[1]]
        content["model"]["vocab"] = {token: number for number, token in enumerate(rotated)}

    edit(folder / "tokenizer.json", rotate)


def other_end(folder: Path) -> None:
    set_values(folder / "tokenizer_config.json", {"eos_token": "a"})


def set_config(key: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: set_values(folder / "config.json", {key: value})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "vocabulary": (rotate_vocabulary, "tokenizer"),
    "end": (other_end, "tokenizer"),
    "heads": (set_config("n_head", 1), "configuration"),
    "activation": (set_config("activation_function", "relu"), "configuration"),
}


@pytest.mark.parametrize("tune", ["frozen", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_frozen_backbone_is_known_by_its_configuration_and_tokenizer_too(
    tune: str, original: Path, data: Path, tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    run = pretrained_run(data, original, tmp_path / "run", "--tune", tune)
    users = ["--all", "--k", 3, "--output", tmp_path / "lists.csv"]
    commands: list[list[object]] = [
        ["evaluate"],
        ["recommend", *users],
        ["recommend", "--verify", *users],
        ["finetune"],
    ]
    for name, (change, subject) in CHANGES.items():
        change(copy := Path(shutil.copytree(original, tmp_path / name)))
        for command, *rest in commands:
            typed = [str(command), "--run", run, *rest, "--backbone", copy]
            line = refused(lambda typed=typed: call(*typed))
            assert (
                f"the {subject} of backbone {str(copy)!r} is not the one this run was trained with (SHA-256 "
                in line
            )
    assert not (tmp_path / "lists.csv").exists()
    assert not (run / "finetune").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_faithful_copy_of_a_frozen_backbone_is_accepted(
    dtype: torch.dtype, original: Path, data: Path, tmp_path: Path
) -> None:
    run, copy = pretrained_run(data, original, tmp_path / "run"), tmp_path / "copy"
    AutoModelForCausalLM.from_pretrained(original, dtype=dtype, trust_remote_code=False).save_pretrained(copy)
    tokenizer = AutoTokenizer.from_pretrained(original, trust_remote_code=False)
    tokenizer("a user has interacted", truncation=True, max_length=2)  # the library saves the truncation
    tokenizer.save_pretrained(copy)
    set_values(copy / "config.json", {"transformers_version": "5.0.0", "architectures": None})
    users, train = np.arange(8), small_dataset().train
    expected = load(run).score(users, train)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(load(run, backbone=copy).score(users, train), expected)
    for name, flags in (("original", []), ("copy", ["--backbone", copy])):
        lists = ["--all", "--k", 3, "--output", tmp_path / f"{name}.csv"]
        call("recommend", "--run", run, *flags, *lists)
    assert (tmp_path / "copy.csv").read_text() == (tmp_path / "original.csv").read_text()
    call("evaluate", "--run", run, "--backbone", copy)
    call("finetune", "--run", run, "--backbone", copy, "--epochs", 1)
    assert load(run, backbone=copy).stage == "finetune"


def test_a_configuration_has_the_same_hash_with_and_without_its_defaults(
    original: Path, folder: Path
) -> None:
    edit(
        folder / "config.json",
        lambda content: {key: value for key, value in content.items() if key != "use_cache"},
    )
    configs = [
        load_backbone(BackboneConfig(str(path)))[0].model.config for path in (original, folder, folder)
    ]
    assert len({config_sha256(config) for config in configs}) == 1
    configs[0].rope_parameters = {"factor": 2.0}
    configs[1].rope_parameters = {"factor": 4.0}
    assert len({config_sha256(config) for config in configs}) == 3


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python, which has no serialised form."""

    def __init__(self, letters: str, **settings: Any) -> None:
        self.letters = letters
        super().__init__(**settings)

    @property
    def vocab_size(self) -> int:
        return len(self.letters)

    def get_vocab(self) -> dict[str, int]:
        return {letter: number for number, letter in enumerate(self.letters)}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        (Path(save_directory) / "letters.txt").write_text(self.letters, "utf-8")
        return ("letters.txt",)


def test_a_tokenizer_in_python_is_known_by_its_vocabulary() -> None:
    assert tokenizer_sha256(Letters("abc")) == tokenizer_sha256(Letters("abc"))
    assert tokenizer_sha256(Letters("abc")) != tokenizer_sha256(Letters("acb"))


def test_a_run_that_holds_its_backbone_takes_no_other(folder: Path, data: Path, tmp_path: Path) -> None:
    run = pretrained_run(data, folder, tmp_path / "run", "--tune", "full")
    for command in ("evaluate", "recommend", "finetune"):
        users = ["--all"] if command == "recommend" else []
        line = refused(
            lambda command=command, users=users: call(
                command, "--run", run, "--backbone", folder / "..", *users
            )
        )
        assert line == "the run holds its backbone, which was tuned: leave --backbone out"


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_a_built_in_backbone_is_trained_in_full(tune: str, data: Path, tmp_path: Path) -> None:
    """Otherwise the run would not hold it, and nothing else does."""
    line = refused(lambda: call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--tune", tune))
    assert line == f"--tune {tune}: 1x128 is not pretrained and is trained in full: leave --tune out"
    assert not (tmp_path / "run").exists()


def test_a_system_without_a_backbone_takes_none(folder: Path, data: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--system", "popularity")
    line = refused(lambda: call("evaluate", "--run", tmp_path / "run", "--backbone", folder))
    assert line == "popularity has no backbone: leave --backbone out"


def test_an_interrupted_run_is_resumed_with_a_backbone_that_moved(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    restore = loop.TrainingRun.restore_best_weights
    whole = pretrained_run(data, folder, tmp_path / "whole", "--epochs", 2)
    monkeypatch.setattr(
        loop.TrainingRun,
        "restore_best_weights",
        lambda run: restore(run) if run.progress.epoch < 2 else stop(),
    )
    with pytest.raises((Stopped, SystemExit)):
        pretrained_run(data, folder, tmp_path / "run", "--epochs", 2)
    monkeypatch.undo()
    moved = folder.rename(tmp_path / "elsewhere")
    other = save_backbone(tmp_path / "other", dropout=0.1, seed=1)
    resume = ["pretrain", "--output", tmp_path / "run", "--resume"]
    line = refused(lambda: call(*resume))
    assert f"backbone {str(folder)!r} cannot be loaded: there is no such folder" in line
    assert f"SHA-256 {fingerprint(moved)}" in line
    assert "backbone is not as it was when training began" in refused(
        lambda: call(*resume, "--backbone", other)
    )
    for name, (change, subject) in CHANGES.items():
        change(copy := Path(shutil.copytree(moved, tmp_path / name)))
        assert f"{subject} is not as it was when training began" in refused(
            lambda copy=copy: call(*resume, "--backbone", copy)
        )
    call(*resume, "--backbone", moved)
    expected, weights = (
        load_file(run / "pretrain" / "model.safetensors") for run in (whole, tmp_path / "run")
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
