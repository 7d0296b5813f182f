"""Frozen weights are held once, in bfloat16 where the device multiplies in it. Their hash stays the same."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.models import load
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.fingerprints import weights_sha256
from cllm4rec.models.language.loading import held_dtype, load_backbone
from cllm4rec.training import device, loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.resume import Stopped
from tests.support.backbones import ARCHITECTURES, pretrained_run, save_backbone, small_dataset
from tests.support.commands import call
from tests.support.tables import refused

QUICK = TrainConfig(epochs=1, batch_size=8)
Force = Callable[[bool], None]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Force:
    """Say whether the device multiplies in bf16."""
    return lambda multiplies: monkeypatch.setattr(device, "multiplies_bf16", lambda _: multiplies)


def rounded(folder: Path, stored: torch.dtype = torch.bfloat16) -> None:
    """Round the weights of a folder to bfloat16, and store them in a dtype."""
    weights = load_file(folder / "model.safetensors")
    in_dtype = {name: tensor.bfloat16().to(stored) for name, tensor in weights.items()}
    save_file(in_dtype, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("settings", "multiplies", "expected"),
    [
        ({}, True, torch.bfloat16),
        ({}, False, torch.float32),
        ({"tune": "lora"}, True, torch.bfloat16),
        ({"tune": "full"}, True, torch.float32),
        ({"dtype": "float32"}, True, torch.float32),
        ({"dtype": "bfloat16"}, False, torch.bfloat16),
    ],
)
def test_only_frozen_weights_are_held_in_bfloat16(
    settings: dict[str, str], multiplies: bool, expected: torch.dtype, force: Force
) -> None:
    force(multiplies)
    assert held_dtype(BackboneConfig("folder", **settings)) == expected
    assert held_dtype(BackboneConfig("tiny")) == torch.float32


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_a_cpu_multiplies_bf16_by_avx512_or_amx(
    avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert device.multiplies_bf16("cpu") == (avx512 or amx)
    assert not device.multiplies_bf16("mps")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not device.multiplies_bf16("cuda")
    monkeypatch.setattr(device, "on_gpu", lambda: False)
    assert device.default_precision() == "no"  # tiny and small are trained as on any other CPU


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_the_network_is_the_librarys_in_the_dtype_it_is_held_in(
    stored: torch.dtype, architecture: str, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path, architecture)
    weights = load_file(folder / "model.safetensors")
    in_dtype = {name: tensor.to(stored) for name, tensor in weights.items()}
    save_file(in_dtype, folder / "model.safetensors", {"format": "pt"})
    for dtype in ("float32", "bfloat16"):
        backbone, _ = load_backbone(BackboneConfig(str(folder), dtype=dtype))
        published = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
        expected, held = published.state_dict(), backbone.model.state_dict()
        assert held.keys() == expected.keys()
        assert all(torch.equal(held[name], expected[name]) for name in expected)
        tokens = torch.arange(12)[None]
        with torch.no_grad():
            states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, 32))
            logits = published(tokens).logits.float()
        assert states.dtype == backbone.dtype == getattr(torch, dtype)
        rounding = 1e-5 if dtype == "float32" else 2e-2  # attention adds its products in another order
        largest = float(logits.abs().max())
        torch.testing.assert_close(backbone.word_logits(states), logits, rtol=0, atol=rounding * largest)


def test_the_hash_is_of_the_stored_values_whatever_holds_them(folder: Path) -> None:
    in_float32, in_bfloat16 = (
        load_backbone(BackboneConfig(str(folder), dtype=dtype))[0] for dtype in ("float32", "bfloat16")
    )
    assert in_float32.stored_sha256 == in_bfloat16.stored_sha256 == in_float32.fingerprint()
    assert in_bfloat16.fingerprint() != in_float32.fingerprint()
    rounded(folder)
    of_bfloat16 = load_backbone(BackboneConfig(str(folder), dtype="bfloat16"))[0].stored_sha256
    rounded(folder, torch.float32)
    assert load_backbone(BackboneConfig(str(folder), dtype="float32"))[0].stored_sha256 == of_bfloat16
    assert of_bfloat16 != in_float32.stored_sha256


def test_the_hash_is_of_names_and_bytes_in_float32() -> None:
    """The SHA-256 of b"a", two float32 numbers, b"b" and an int64 number."""
    weights = {"b": torch.tensor([3]), "a": torch.tensor([1.0, -2.0], dtype=torch.bfloat16)}
    content = b"a" + np.array([1, -2], np.float32).tobytes() + b"b" + np.array([3], np.int64).tobytes()
    assert weights_sha256(weights) == hashlib.sha256(content).hexdigest()


def test_types_that_are_no_plain_numbers_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].to(torch.float8_e4m3fn)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    line = refused(lambda: load_backbone(BackboneConfig(str(folder))))
    assert "tensor transformer.wte.weight is of type F8_E4M3, which this package does not read" in line


@pytest.mark.parametrize("tune", ["frozen", "lora"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_bfloat16_backbone_trains_and_scores_the_same_after_saving(
    precision: str, tune: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    model = CLLM4Rec(CLLM4RecConfig(str(folder), tune, dtype="bfloat16"))
    for stage in model.stages:
        model.fit_stage(small_dataset(), stage, QUICK)
    assert model.net.backbone.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model._trained().values()} == {torch.float32}
    model.save(tmp_path / "saved")
    users = np.arange(small_dataset().n_users)
    scores = model.score(users, small_dataset().train)
    assert np.isfinite(scores).all()
    loaded = CLLM4Rec.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.score(users, small_dataset().train), scores)


@pytest.mark.parametrize(
    "flags", [[], ["--system", "rsllm", "--hard", 0, "--negatives", 4]], ids=["cllm4rec", "rsllm"]
)
def test_a_run_is_served_by_a_device_of_the_other_kind(
    flags: list[object], folder: Path, data: Path, tmp_path: Path, force: Force
) -> None:
    force(True)
    run = pretrained_run(data, folder, tmp_path / "run", *flags)
    users, seen = np.arange(small_dataset().n_users), small_dataset().train
    in_bfloat16 = load(run)
    assert in_bfloat16.net.backbone.dtype == torch.bfloat16
    force(False)
    in_float32 = load(run, backbone=folder.rename(tmp_path / "elsewhere"))
    assert in_float32.net.backbone.dtype == torch.float32
    scores, expected = (model.score(users, seen) for model in (in_bfloat16, in_float32))
    np.testing.assert_allclose(scores, expected, atol=0.05 * expected.std() + 0.01 * np.abs(expected).max())


def test_training_resumes_in_the_dtype_it_began_in(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: Force
) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    force(True)
    whole = pretrained_run(data, folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "restore_best_weights", stop)
        with pytest.raises((Stopped, SystemExit)):
            pretrained_run(data, folder, tmp_path / "run")
    resume = ["pretrain", "--output", tmp_path / "run", "--resume"]
    force(False)
    assert "held in bfloat16 when training began, and is in float32 here" in refused(lambda: call(*resume))
    force(True)
    call(*resume)
    expected, weights = (
        load_file(run / "pretrain" / "model.safetensors") for run in (whole, tmp_path / "run")
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--dtype", "bfloat16"], "--dtype bfloat16: trained weights are float32: leave --dtype out"),
        (["--revision", "main"], "--revision main: 1x128 is built here: leave it out"),
    ],
)
def test_settings_of_pretrained_backbones_are_refused_for_built_in_ones(
    flags: list[str], reason: str, data: Path, tmp_path: Path
) -> None:
    line = refused(lambda: call("pretrain", "--dataset", data, "--output", tmp_path / "run", *flags))
    assert line.startswith(reason)
    assert not (tmp_path / "run").exists()


def test_settings_that_pretraining_fixed_stay(folder: Path, data: Path, tmp_path: Path) -> None:
    run = pretrained_run(data, folder, tmp_path / "run", "--dtype", "float32")
    line = refused(lambda: call("finetune", "--run", run, "--dtype", "bfloat16"))
    assert line == "--dtype was fixed by pretraining (float32): pretrain again to change it"


def test_a_name_at_the_hub_has_a_revision_and_its_commit_is_recorded(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main branch moves on after training; the run asks for the commit of its training."""
    cached, revisions = folder.rename(tmp_path / ("a" * 40)), []

    def snapshot(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        revisions.append((name, revision))
        return str(cached)

    monkeypatch.setattr("cllm4rec.models.language.pretrained.snapshot_download", snapshot)
    run = pretrained_run(data, Path("some/model"), tmp_path / "run", "--revision", "v1")
    assert set(revisions) == {("some/model", "v1")}
    revisions.clear()
    load(run)
    assert revisions == [("some/model", "a" * 40)]
    revisions.clear()
    load(run, backbone=cached)
    assert not revisions
    call("finetune", "--run", run, "--backbone", cached, "--epochs", 1)
    assert not revisions
    load(run)
    assert revisions == [("some/model", "a" * 40)], "finetuning with a copy keeps the commit"
    flags = ["--output", tmp_path / "new", "--backbone", cached, "--revision", "v1"]
    line = refused(lambda: call("pretrain", "--dataset", data, *flags))
    assert "--revision v1 is of a name at the hub, not of files: leave it out" in line
