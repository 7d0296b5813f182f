"""LoRA: in PEFT's format, equal to PEFT's own reading of it, merged for scoring, trained further unmerged."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cllm4rec.files.manifest import check_manifest
from cllm4rec.models import load
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language import adapters
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.resume import Stopped
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import pretrained_run, save_backbone, small_dataset
from tests.support.commands import call
from tests.support.readme import program

peft = pytest.importorskip("peft")

ROOT = Path(__file__).parents[3]
TRAINING = TrainConfig(epochs=2, batch_size=8, warmup_steps=2, learning_rate=1e-2)
SMALL_RSLLM = ["--system", "rsllm", "--hard", 0, "--negatives", 4]
TOKENS = torch.tensor([[5, 9, 2, 270, 17, 4]])
USERS = np.arange(30)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("adapters") / request.param
    return save_backbone(folder, request.param, dropout=0.1, titled=True)


@pytest.fixture(scope="module", params=["cllm4rec", "rsllm"])
def fitted(request: pytest.FixtureRequest, backbone: Path) -> LanguageRecommender:
    return fit(system(request.param, backbone))


@pytest.fixture(scope="module")
def saved(fitted: LanguageRecommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted.save(folder := tmp_path_factory.mktemp("saved"))
    return folder


def system(name: str, backbone: Path, dtype: str = "float32") -> LanguageRecommender:
    if name == "rsllm":
        return RSLLM(RSLLMConfig(backbone=str(backbone), dtype=dtype, hard=0, negatives=4, title_words=4))
    return CLLM4Rec(CLLM4RecConfig(backbone=str(backbone), dtype=dtype, tune="lora"))


def fit(model: LanguageRecommender, *stages: str) -> LanguageRecommender:
    for stage in stages or model.stages:
        model.fit_stage(small_dataset(), stage, TRAINING)
    return model


def arrays(model: LanguageRecommender) -> dict[str, Tensor]:
    """All trained weights, adapters too."""
    return {name: parameter.detach().clone() for name, parameter in model._trained().items()}


def assert_same(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def original(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
    return model.eval()


def by_peft(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapters of a folder, as PEFT reads them; no key may be missing or left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # GPT-2 keeps its matrices transposed, and PEFT says so
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        return peft.PeftModel.from_pretrained(model, folder).eval()


def random_adapters(model: PreTrainedModel, seed: int = 0, std: float = 0.1) -> None:
    """Adapters that change the states, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    for weight in adapters._weights(model).values():
        weight.data = torch.randn(weight.shape, generator=generator) * std


@torch.no_grad()
def test_peft_loads_the_adapters_of_a_run_and_gives_our_word_logits(
    fitted: LanguageRecommender, saved: Path, backbone: Path
) -> None:
    logits = by_peft(original(backbone), saved / "adapter")(TOKENS).logits
    net = fitted.net.backbone
    mask = torch.ones_like(TOKENS, dtype=torch.bool)
    states = net(TOKENS, mask, torch.zeros(1, net.width))
    torch.testing.assert_close(net.word_logits(states), logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(original(backbone)(TOKENS).logits, logits, atol=1e-3), "they were trained"


def test_the_adapters_are_held_once(fitted: LanguageRecommender, saved: Path) -> None:
    assert {file.name for file in (saved / "adapter").iterdir()} == {adapters.CONFIG, adapters.WEIGHTS}
    assert not [name for name in load_file(saved / "model.safetensors") if "lora_" in name]
    stored = load_file(saved / "adapter" / adapters.WEIGHTS)
    assert len(stored) == 2 * len(adapters.adapter_layers(fitted.net.backbone.model))
    config = json.loads((saved / "adapter" / adapters.CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (16, 32, "LORA")
    assert config["base_model_name_or_path"] == fitted.config.backbone
    check_manifest(saved, whole=True)


def assert_frozen(model: LanguageRecommender, backbone: Path) -> None:
    """The backbone's weights are those of its folder, in the dtype they are held in."""
    after = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.net.backbone.model.state_dict().items()
        if ".lora_" not in name
    }
    assert_same(after, original(backbone).to(model.net.backbone.dtype).state_dict())


def test_frozen_weights_stay_bit_identical(fitted: LanguageRecommender, backbone: Path) -> None:
    assert_frozen(fitted, backbone)


def test_held_in_bfloat16_merged_scores_are_equal_to_its_rounding(backbone: Path, tmp_path: Path) -> None:
    model = fit(system("cllm4rec", backbone, "bfloat16"))
    assert {weight.dtype for weight in model._trained().values()} == {torch.float32}
    model.save(tmp_path / "saved")
    unmerged, merged = CLLM4Rec.load(tmp_path / "saved"), load(tmp_path / "saved")
    assert merged.net.backbone.dtype == torch.bfloat16
    expected = model.score(USERS, small_dataset())
    np.testing.assert_array_equal(unmerged.score(USERS, small_dataset()), expected)
    scores = merged.score(USERS, small_dataset())
    assert np.abs(scores - expected).max() < 0.03 * np.abs(expected).max()


def test_merged_scores_are_those_of_the_adapters(fitted: LanguageRecommender, saved: Path) -> None:
    unmerged, merged = type(fitted).load(saved), load(saved)
    assert not adapters.are_merged(unmerged.net.backbone.model)
    assert adapters.are_merged(merged.net.backbone.model)
    expected = fitted.score(USERS, small_dataset())
    np.testing.assert_array_equal(unmerged.score(USERS, small_dataset()), expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(merged.score(USERS, small_dataset()) / scale, expected / scale, atol=1e-5)


def test_a_merged_layer_computes_one_product(saved: Path) -> None:
    model = load(saved)
    computed: list[nn.Module] = []
    for layer in adapters.adapter_layers(model.net.backbone.model).values():
        for matrices in (layer.lora_A, layer.lora_B):
            matrices["default"].register_forward_hook(lambda module, *_: computed.append(module))
    model.score(USERS, small_dataset())
    assert not computed


def test_a_merged_model_is_saved_as_it_was_loaded(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["cllm4rec", pytest.param("rsllm", marks=pytest.mark.slow)])
def test_finetuning_a_loaded_run_is_as_if_it_had_never_been_saved(
    name: str, dtype: str, backbone: Path, tmp_path: Path
) -> None:
    """Also after it was merged for scoring: the frozen weights are read again."""
    model = fit(system(name, backbone, dtype), "pretrain")
    model.save(tmp_path / "saved")
    expected = arrays(fit(model, "finetune"))
    assert_same(arrays(fit(type(model).load(tmp_path / "saved"), "finetune")), expected)
    merged = load(tmp_path / "saved")
    merged.recommend(k=3, histories=[small_dataset().items["item_id"][:4].to_list()])
    assert_same(arrays(fit(merged, "finetune")), expected)
    assert_frozen(merged, backbone)


def test_the_seed_draws_the_adapters(backbone: Path) -> None:
    drawn = [
        adapters._weights(
            system("cllm4rec", backbone)
            .build(small_dataset(), TrainConfig(epochs=1, seed=seed))
            .net.backbone.model
        )
        for seed in (0, 0, 1)
    ]
    assert_same(drawn[1], drawn[0])
    names = [name for name in drawn[0] if "lora_A" in name]
    assert not any(torch.equal(drawn[0][name], drawn[2][name]) for name in names)
    assert not any(drawn[0][name.replace("lora_A", "lora_B")].any() for name in names), "zero maps"


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--tune", "lora"], SMALL_RSLLM], ids=["cllm4rec", "rsllm"])
def test_an_interrupted_run_resumes_to_the_same_adapters(
    flags: list[object], folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    runs = tmp_path / "whole", tmp_path / "resumed"
    pretrained_run(data, folder, runs[0], *flags, "--epochs", 2)
    restore = loop.TrainingRun.restore_best_weights
    monkeypatch.setattr(
        loop.TrainingRun,
        "restore_best_weights",
        lambda run: restore(run) if run.progress.epoch < 2 else stop(),
    )
    with pytest.raises((Stopped, SystemExit)):
        pretrained_run(data, folder, runs[1], *flags, "--epochs", 2)
    monkeypatch.undo()
    call("pretrain", "--output", runs[1], "--resume")
    for run in runs:
        call("finetune", "--run", run, "--epochs", 2)
        call("evaluate", "--run", run, "--verify")
    for stage in ("pretrain", "finetune"):
        for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
            assert_same(*(load_file(run / stage / name) for run in runs))
    first, last = (
        load_file(runs[0] / stage / "adapter" / adapters.WEIGHTS)
        for stage in RunFolder(runs[0]).description.stages
    )
    assert not any(torch.equal(first[name], last[name]) for name in first), "finetuning trained them further"


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300},
    "gpt_neox": SIZES,
    "falcon": SIZES,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300},
    "phi": SIZES,
    "gemma3_text": SIZES | {"head_dim": 8},
    "mixtral": SIZES | {"num_local_experts": 2},
    "qwen2_moe": SIZES
    | {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_has_adapters_that_peft_loads_and_that_merge(family: str, tmp_path: Path) -> None:
    config = CONFIG_MAPPING[family](**FAMILIES[family], bos_token_id=0, eos_token_id=0, pad_token_id=0)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
    model.save_pretrained(tmp_path / "model")
    plain = model(TOKENS).logits
    adapters.add_adapters(model)
    torch.testing.assert_close(model(TOKENS).logits, plain, rtol=0, atol=0)  # zero maps
    random_adapters(model)
    logits = model(TOKENS).logits
    assert not torch.allclose(logits, plain, atol=1e-3)
    adapters.write_adapter_weights(model, tmp_path / "adapter")
    adapters.write_adapter_config(model, tmp_path / "adapter", "some/model")
    torch.testing.assert_close(
        by_peft(original(tmp_path / "model"), tmp_path / "adapter")(TOKENS).logits,
        logits,
        rtol=1e-5,
        atol=1e-5,
    )
    layers = adapters.adapter_layers(model)
    output = model.get_output_embeddings()
    assert output not in layers.values()
    others = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {
        f"{name}.base_layer" for name in layers
    }
    assert {model.get_submodule(name) for name in others} <= {output}, "every other linear layer has one"
    adapters.merge_adapters(model)
    torch.testing.assert_close(model(TOKENS).logits, logits, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_adapters_are_float32_and_learn(backbone: Path) -> None:
    """Their gradients are those of a float32 model, but for the rounding of its frozen weights."""
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        model = original(backbone).to(dtype).requires_grad_(False)
        adapters.add_adapters(model)
        random_adapters(model)
        weights = adapters._weights(model).values()
        assert {weight.dtype for weight in weights} == {torch.float32}
        model(TOKENS, labels=TOKENS).loss.backward()
        assert not any(
            layer.get_base_layer().weight.grad is not None
            for layer in adapters.adapter_layers(model).values()
        )
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 0 < difference < 0.05


@pytest.mark.slow
@torch.no_grad()
def test_merging_into_bfloat16_rounds_no_more_than_bfloat16_itself() -> None:
    """Gemma's states with adapters, each against float32: merged weights are as near as separate adapters."""
    if "CLLM4REC_GEMMA" not in os.environ:
        pytest.skip("no Gemma")
    folder = Path(os.environ["CLLM4REC_GEMMA"])
    tokens = torch.randint(5, 200_000, (4, 64), generator=torch.Generator().manual_seed(0))

    def states(dtype: torch.dtype, merged: bool) -> Tensor:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False).eval()
        adapters.add_adapters(model)
        random_adapters(model)
        for layer in adapters.adapter_layers(model).values():  # 2 % of the weights, as trained ones
            update = layer.get_delta_weight("default").norm()
            layer.lora_B["default"].weight *= 0.02 * layer.get_base_layer().weight.float().norm() / update
        if merged:
            adapters.merge_adapters(model)
        return model.base_model(tokens).last_hidden_state.float()

    exact = states(torch.float32, False)
    merged, separate = ((states(torch.bfloat16, way) - exact).norm() / exact.norm() for way in (True, False))
    assert merged < 1.2 * separate
    assert merged < 0.03
    assert (states(torch.float32, True) - exact).norm() < 1e-5 * exact.norm()


def test_the_docs_load_adapters_with_peft(
    saved: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (ROOT / "docs" / "backbones.md").read_text().split("\n## LoRA\n")[1].split("\n## ")[0]
    source = program(section)
    assert "PeftModel.from_pretrained" in source
    (tmp_path / "myrun").mkdir()
    shutil.copytree(saved, tmp_path / "myrun" / "finetune")
    shutil.copytree(backbone, tmp_path / "mybackbone")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/backbones.md", "exec"), names)
    assert names["model"](TOKENS).logits.shape[:2] == TOKENS.shape
