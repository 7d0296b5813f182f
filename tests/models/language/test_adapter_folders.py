"""A folder of adapters is not trusted: what does not fit the network is refused in one line."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cllm4rec.files.manifest import write_manifest
from cllm4rec.models import load
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language import adapters
from tests.support.backbones import save_backbone, set_values, small_dataset
from tests.support.damage import flips
from tests.support.tables import refused

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLLM4Rec on GPT-2."""
    folder = tmp_path_factory.mktemp("small")
    backbone = save_backbone(folder / "backbone", titled=True)
    CLLM4Rec(CLLM4RecConfig(backbone=str(backbone), tune="lora")).build(small_dataset()).save(
        folder / "model"
    )
    return folder / "model"


@pytest.fixture
def stored(small_model: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(small_model, tmp_path / "model"))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncate(folder: Path) -> None:
    os.truncate(folder / adapters.WEIGHTS, 1000)


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / adapters.WEIGHTS), folder / "adapter_model.bin")
    (folder / adapters.WEIGHTS).unlink()


def configured(**values: Any) -> Callable[[Path], None]:
    return lambda folder: set_values(folder / adapters.CONFIG, values)


def with_tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / adapters.WEIGHTS)
        change(tensors)
        save_file(tensors, folder / adapters.WEIGHTS)

    return damage


def first_transposed(tensors: dict[str, Tensor]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name].T.contiguous()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "adapter_config.json is missing"),
    "no config": (without(adapters.CONFIG), "adapter_config.json is missing"),
    "no weights": (without(adapters.WEIGHTS), "adapter_model.safetensors is missing"),
    "pickle": (pickle_only, "adapter_model.safetensors is missing; other formats are not read"),
    "truncated": (truncate, "is damaged"),
    "no JSON": (lambda folder: (folder / adapters.CONFIG).write_text("{"), "adapter_config.json"),
    "no object": (lambda folder: (folder / adapters.CONFIG).write_text("[]"), "adapter_config.json"),
    "rank": (configured(r=8), "adapter_config.json: r is 8, not 16"),
    "huge rank": (configured(r=10**12), "r is 1000000000000, not 16"),
    "alpha": (configured(lora_alpha=16), "lora_alpha is 16, not 32"),
    "kind": (configured(peft_type="XLORA"), "peft_type is 'XLORA', not 'LORA'"),
    "no kind": (configured(peft_type=None), "peft_type is None, not 'LORA'"),
    "modules": (configured(target_modules=["lm_head"]), "target_modules differs in "),
    "all modules": (configured(target_modules="all-linear"), "target_modules is 'all-linear', not"),
    "code": (configured(auto_mapping={"base_model_class": "os"}), "auto_mapping is "),
    "other weights": (configured(modules_to_save=["lm_head"]), "modules_to_save is ['lm_head'], not None"),
    "other maps": (configured(use_dora=True), "use_dora is True, not False"),
    "unknown key": (configured(corpus="x"), "corpus is 'x', not None"),
    "a tensor more": (
        with_tensors(lambda tensors: tensors.update(extra=torch.zeros(1))),
        "adapter_model.safetensors has an unknown tensor extra",
    ),
    "a tensor less": (
        with_tensors(lambda tensors: tensors.pop(min(tensors))),
        "adapter_model.safetensors lacks base_model.model.transformer.h.0",
    ),
    "a shape": (with_tensors(first_transposed), ": F32 [32, 16], not F32 [16, 32]: base_model"),
    "a type": (
        with_tensors(lambda tensors: tensors.update({min(tensors): tensors[min(tensors)].half()})),
        ": F16 [16, 32], not F32 [16, 32]: base_model",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("signed", [False, True], ids=["damaged", "hostile"])
def test_a_damaged_folder_of_adapters_is_refused_in_one_line(name: str, signed: bool, stored: Path) -> None:
    damage, expected = DAMAGES[name]
    damage(stored / "adapter")
    if signed:  # as a hostile author would
        write_manifest(stored)
    line = refused(lambda: load(stored))
    assert str(stored) in line
    assert "train this stage again" in line or "not listed in manifest.json: move it" in line
    if signed:
        assert expected in line


def test_where_adapters_came_from_is_not_read(stored: Path) -> None:
    users, train = np.arange(8), small_dataset().train
    expected = load(stored).score(users, train)
    assert np.ptp(expected) > 0
    configured(base_model_name_or_path="another/model", revision="main", peft_version="99")(
        stored / "adapter"
    )
    configured(a_key_of_a_later_version=None)(stored / "adapter")
    write_manifest(stored)
    np.testing.assert_array_equal(load(stored).score(users, train), expected)


def test_a_run_with_adapters_needs_peft(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name)
    )
    assert "adapters need peft, which is not installed: pip install peft (extra cllm4rec[lora])" in refused(
        lambda: load(stored)
    )


def test_a_damaged_number_is_found_when_weights_are_verified(stored: Path) -> None:
    file = stored / "adapter" / adapters.WEIGHTS
    for _ in flips(file, 3, slice(-1000, None)):
        load(stored)
        line = refused(lambda: load(stored, verify=True))
        assert "adapter/adapter_model.safetensors differs from its SHA-256 in manifest.json" in line
    load(stored, verify=True)


def test_adapters_are_saved_whole_or_not_at_all(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    model = load(stored)
    before = {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()}
    monkeypatch.setattr(adapters, "save_file", full_disk)
    for save in (model.save, model.save_weights):
        assert "No space left on device" in refused(save, stored)
    assert {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()} == before
