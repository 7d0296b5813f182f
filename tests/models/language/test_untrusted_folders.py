"""No code of a model's folder runs, and no pickle is read."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cllm4rec.files.manifest import write_manifest
from cllm4rec.models import load
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from tests.support.backbones import refused_backbone, set_values, sign_run
from tests.support.commands import call
from tests.support.tables import refused

PLANTED = "import pathlib\npathlib.Path({!r}).write_text('run')\n"
AUTO_MAP = {
    "AutoConfig": "planted.Config",
    "AutoModelForCausalLM": "planted.Model",
    "AutoTokenizer": ["planted.Tokenizer", "planted.Tokenizer"],
}


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that planted code would write; standard input says `y`.

    The test fails if the file exists at its end.
    """
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


def plant(folder: Path, ran: Path) -> None:
    """Write code under every name by which a loader could look for it."""
    names = (
        "planted.py",
        "modeling_gpt2.py",
        "tokenization_gpt2.py",
        "configuration_gpt2.py",
        "custom_generate/generate.py",
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(PLANTED.format(str(ran)), "utf-8")


@pytest.mark.parametrize("known_type", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_backbones_folder_never_runs(file: str, known_type: bool, folder: Path, ran: Path) -> None:
    before = load_backbone(BackboneConfig(str(folder)))[1]("interacted")["input_ids"]
    plant(folder, ran)
    set_values(folder / file, {"auto_map": AUTO_MAP})
    if not known_type:
        set_values(folder / file, {"model_type": "planted", "tokenizer_class": "Planted"})
    if file == "config.json" and not known_type:
        assert (
            "transformers has no model type 'planted', and code in a model's folder is never run"
            in refused_backbone(folder)
        )
    else:  # the library's code builds the network; tokenizer.json describes the tokenizer whole
        assert load_backbone(BackboneConfig(str(folder)))[1]("interacted")["input_ids"] == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_runs_folder_never_runs(file: str, data: Path, ran: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--epochs", 1)
    inner = tmp_path / "run" / "pretrain" / "backbone"
    plant(inner, ran)
    planted = {"auto_map": AUTO_MAP, "model_type": "planted", "tokenizer_class": "Planted"}
    set_values(inner / file, planted)
    assert "is not listed in manifest.json" in refused(lambda: load(tmp_path / "run"))
    write_manifest(inner.parent)  # as a hostile author would
    sign_run(tmp_path / "run")
    if file == "config.json":
        line = refused(lambda: load(tmp_path / "run"))
        assert f"{inner} is damaged" in line
        assert line.endswith("train this stage again")
    else:
        load(tmp_path / "run")


def test_a_pickle_is_not_read(folder: Path, ran: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "it has no model.safetensors, and other weights are not read" in refused_backbone(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "../other.safetensors"])
def test_a_file_of_weights_that_the_config_names_is_not_read(name: str, folder: Path) -> None:
    set_values(folder / "config.json", {"transformers_weights": name})
    assert "config.json has transformers_weights" in refused_backbone(folder)


def test_adapters_that_would_lead_to_another_model_are_not_read(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "another/model", "peft_type": "LORA"}', "utf-8"
    )
    assert "merge them with merge_and_unload" in refused_backbone(folder)
