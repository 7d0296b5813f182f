"""Backbones of other architectures than the one made here, used by folder, frozen and tuned."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import scaled_dot_product_attention
from transformers import FalconConfig, GPT2Config, LlamaConfig, MistralConfig, PreTrainedModel, T5Config
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.models.auto import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models.attention import ATTENTION, SHORT, attention, written_out
from cllm4rec.models.backbone import load_backbone
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import BackboneConfig, CLLM4RecConfig
from cllm4rec.models.popularity import Popularity
from cllm4rec.text.prompts import Template
from cllm4rec.text.tokenizer import train_bpe
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import EpochRecord

ARCHITECTURES = ("gpt2", "llama")
TABLES = {f"{table}.{side}.weight" for table in ("collaborative", "content") for side in ("users", "items")}
TRAINING = TrainConfig(
    epochs=4, batch_size=8, warmup_steps=2, learning_rate=1e-2
)  # 5 steps a pass over 40 users: at least 20 in each stage


@cache
def small_world() -> Dataset:
    world = taste_world(4, n_users=40, n_items=30, n_events=10)
    return build_dataset(world.events, world.items)


def described(architecture: str, n_words: int, dropout: float = 0.0) -> GPT2Config | LlamaConfig:
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=n_words,
            n_positions=256,
            n_embd=32,
            n_layer=2,
            n_head=2,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=0,
            eos_token_id=0,
        )
    return LlamaConfig(
        vocab_size=n_words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def save_backbone(folder: Path, architecture: str, dropout: float = 0.0, seed: int = 0) -> Path:
    """A language model that nobody trained, and a tokenizer, as Hugging Face folders have them."""
    tokenizer = train_bpe(["a user has interacted with an item", *small_world().item_texts["title"]], vocabulary=400)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        described(architecture, len(tokenizer), dropout), trust_remote_code=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fit(folder: Path, tune: str, records: list[EpochRecord] | None = None) -> CLLM4Rec:
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder), tune=tune))
    for stage in model.stages:
        on_epoch = (lambda record: None) if records is None else records.append
        model.fit(small_world().train, small_world().validation, TRAINING, stage, on_epoch)
    return model


@pytest.fixture(scope="module", params=ARCHITECTURES)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CLLM4Rec, Path]:
    folder = save_backbone(tmp_path_factory.mktemp(request.param), request.param)
    return fit(folder, "frozen"), folder


@pytest.mark.parametrize("tune", ["frozen", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_backbone_by_folder_trains_and_scores_the_same_after_saving(architecture: str, tune: str, tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    model = fit(save_backbone(tmp_path / "backbone", architecture), tune, records)
    for name in ("collaborative", "recommend"):
        values = [record.losses[name] for record in records if name in record.losses]
        assert len(values) == TRAINING.epochs
        assert values[-1] < values[0]
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    loaded = CLLM4Rec.load(tmp_path / "saved")
    users = np.arange(small_world().n_users)
    scores = model.score(users, small_world().train)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(loaded.score(users, small_world().train), scores)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_tuning_changes_the_backbone_and_stores_it(architecture: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", architecture)
    before = load_backbone(BackboneConfig(str(folder)))[0].fingerprint()
    model = fit(folder, "full")
    assert model.net.backbone.fingerprint() != before
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    for file in folder.iterdir():
        file.unlink()
    loaded = CLLM4Rec.load(tmp_path / "saved")
    assert loaded.net.backbone.fingerprint() == model.net.backbone.fingerprint(), "the folder is not needed any more"


def test_a_frozen_backbone_stays_bit_identical(frozen: tuple[CLLM4Rec, Path]) -> None:
    model, folder = frozen
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).state_dict()
    trained = model.net.backbone.model.state_dict()
    assert set(trained) == set(original)
    for name, tensor in original.items():
        assert torch.equal(tensor, trained[name]), name
    assert set(model._trained()) == TABLES


def test_the_tables_beside_a_frozen_backbone_are_trained(frozen: tuple[CLLM4Rec, Path]) -> None:
    model, _ = frozen
    untrained = CLLM4Rec(model.config)
    untrained.fit(small_world().train, None, TrainConfig(epochs=0), "pretrain")
    for name in ("collaborative", "content"):
        assert not torch.equal(getattr(model.net, name).whole(), getattr(untrained.net, name).whole())


def test_a_run_with_a_frozen_backbone_stores_the_tables_alone(frozen: tuple[CLLM4Rec, Path], tmp_path: Path) -> None:
    model, _ = frozen
    model.save(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == TABLES
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "items.parquet",
        "manifest.json",
        "model.json",
        "model.safetensors",
        "users.parquet",
    ]
    assert len(json.loads((tmp_path / "model.json").read_text())["backbone_sha256"]) == 64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_backbone_that_changed_on_disk_is_refused(architecture: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", architecture)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder)))
    model.fit(small_world().train, None, TrainConfig(epochs=1), "pretrain")
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    CLLM4Rec.load(tmp_path / "saved")
    save_backbone(folder, architecture, seed=1)
    with pytest.raises(ValueError, match="the weights of backbone .* are not those this run was trained with"):
        CLLM4Rec.load(tmp_path / "saved")


def test_a_frozen_backbone_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", "gpt2")
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder)))
    model.fit(small_world().train, None, TrainConfig(epochs=1), "pretrain")
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="backbone .* cannot be loaded"):
        CLLM4Rec.load(tmp_path / "saved")


def refused(backbone: Path | str) -> str:
    """The message with which a backbone is refused."""
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_backbone(BackboneConfig(str(backbone)))
    message = str(caught.value)
    assert str(backbone) in message
    assert "\n" not in message
    return message


def test_a_folder_that_is_missing_or_empty_is_refused_in_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")


def test_a_folder_of_a_model_that_is_no_causal_language_model_is_refused_in_one_line(tmp_path: Path) -> None:
    config = T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    refused(tmp_path)


def test_a_folder_whose_weights_are_broken_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", "gpt2")
    (folder / "model.safetensors").write_bytes(b"not weights")
    refused(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_without_a_tokenizer_is_refused_in_one_line(architecture: str, tmp_path: Path) -> None:
    """Hugging Face builds an empty tokenizer for some architectures: every text would be lost without a word."""
    folder = save_backbone(tmp_path / "backbone", architecture)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder)


def test_an_unknown_way_of_tuning_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, frozen, lora, full"):
        _ = BackboneConfig("tiny", tune="half").tuned


def test_backbones_made_here_are_tuned_and_pretrained_ones_frozen_unless_asked() -> None:
    assert BackboneConfig("tiny").tuned
    assert BackboneConfig("small").tuned
    assert not BackboneConfig("some/folder").tuned
    assert not BackboneConfig("tiny", tune="frozen").tuned
    assert BackboneConfig("some/folder", tune="full").tuned


@torch.no_grad()
@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_dropout_of_a_frozen_backbone_stays_asleep_in_training_mode(tune: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "gpt2", dropout=0.1)
    net = load_backbone(BackboneConfig(str(folder), tune))[0]
    parent = torch.nn.ModuleList([net])
    parent.train()
    tokens, mask = torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool)
    table = torch.zeros(1, net.width)
    first, second = (net(tokens, mask, table) for _ in range(2))
    if tune == "frozen":
        assert not any(module.training for module in net.modules())
        assert torch.equal(first, second)
    else:
        assert not torch.equal(first, second), "where the backbone is trained its dropout works"
        parent.eval()
        assert torch.equal(net(tokens, mask, table), net(tokens, mask, table))


def test_the_state_of_words_is_that_of_the_language_model_itself(frozen: tuple[CLLM4Rec, Path]) -> None:
    """No factor, no further position, no other mask: what pretraining gave a backbone is what is read."""
    model, folder = frozen
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    tokens = torch.tensor([[5, 9, 2, 300, 17, 4]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    net = model.net.backbone
    with torch.no_grad():
        states = net(tokens, mask, model.net.collaborative)
        torch.testing.assert_close(states @ net.word_head.T, original(tokens).logits, rtol=1e-4, atol=1e-5)


def test_a_window_of_attention_slides_as_in_the_language_model_itself(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "gpt2")
    n_words = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).config.vocab_size
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=n_words, num_key_value_heads=2, sliding_window=3, **sizes)
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    ).eval()
    net = load_backbone(BackboneConfig(backbone=str(folder)))[0].eval()
    tokens = torch.arange(20).view(2, 10)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        expected = original(tokens).logits
        torch.testing.assert_close(net(tokens, mask, torch.zeros(1, 32)) @ net.word_head.T, expected, rtol=1e-4, atol=1e-5)
        changed = tokens.clone()
        changed[:, 0] = 99  # two layers of three tokens reach four back
        same = original(changed).logits == expected
        assert same[:, 5:].all()
        assert not same[:, :5].all()


def heads(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of four heads, keys and values of two."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, n, length, 8, generator=generator) for n in (4, 2, 2))
    return query, key, value


@pytest.mark.parametrize("mask", [None, "added", "boolean", "causal"])
def test_attention_written_out_is_that_of_the_library(mask: str | None) -> None:
    query, key, value = (one.double().requires_grad_() for one in heads(5))
    kept = torch.tensor([True, True, True, False, True]).expand(2, 1, 5, 5)
    masks = {
        None: None,
        "added": torch.zeros(kept.shape).masked_fill(~kept, -torch.inf),
        "boolean": kept,
        "causal": torch.ones(5, 5, dtype=torch.bool).tril(),
    }
    ours = written_out(query, repeat_kv(key, 2), repeat_kv(value, 2), masks[mask], 0.3)
    given = None if mask in (None, "causal") else masks["boolean"]
    theirs = scaled_dot_product_attention(
        query, key, value, attn_mask=given, is_causal=mask == "causal", scale=0.3, enable_gqa=True
    )
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-12)
    towards = torch.randn(ours.shape, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(states, (query, key, value), grad)
        for states, grad in ((ours, towards), (theirs, towards.transpose(1, 2)))
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("mask", [torch.zeros(1, 1, 3, 3) - torch.inf, torch.zeros(1, 1, 3, 3, dtype=torch.bool)])
def test_a_query_that_may_see_nothing_has_a_finite_state(mask: torch.Tensor) -> None:
    query, key, value = (torch.ones(1, 1, 3, 4).bfloat16() for _ in range(3))
    assert torch.equal(written_out(query, key, value, mask, None), torch.ones(1, 3, 1, 4).bfloat16())


def test_what_attention_does_not_know_is_left_to_the_library() -> None:
    query, key, value = heads(5)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="softcap"):
        attention(module, query, key, value, None, softcap=30.0)


@pytest.mark.parametrize("masked", [False, True], ids=["causal", "masked"])
@pytest.mark.parametrize("length", [1, 5, SHORT, SHORT + 1])
def test_attention_under_autocast_on_a_cpu_is_that_of_float32(length: int, masked: bool) -> None:
    """Exactly in long examples, in short ones but for the rounding of products and weights, some 1/256 each."""
    query, key, value = (one.bfloat16().requires_grad_() for one in heads(length))
    kept = torch.arange(length) < max(1, length - 2)
    mask = torch.zeros(length).masked_fill(~kept, -torch.inf).expand(2, 1, length, length) if masked else None
    groups = torch.nn.Module()
    groups.num_key_value_groups = 2
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = attention(groups, query, key, value, mask)  # (B, L, heads, width)
    states.sum().backward()
    single = [one.detach().float().requires_grad_() for one in (query, key, value)]
    exact = scaled_dot_product_attention(*single, attn_mask=mask, is_causal=not masked, enable_gqa=True).transpose(1, 2)
    exact.bfloat16().sum().backward()
    assert states.dtype == torch.bfloat16
    near = {"rtol": 0.0, "atol": 0.0} if length > SHORT else {"rtol": 0.02, "atol": 0.02}
    assert torch.allclose(states, exact.bfloat16(), **near)
    for one, other in zip((query, key, value), single, strict=True):
        exact = other.grad.bfloat16()
        assert (one.grad - exact).norm() <= near["rtol"] * exact.norm() + near["atol"]


def test_a_backbone_that_cannot_take_our_attention_keeps_its_own(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "gpt2")
    config = FalconConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, bias=False)
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    assert load_backbone(BackboneConfig(backbone=str(folder)))[0].model.config._attn_implementation == "sdpa"


def test_attention_without_autocast_is_that_of_the_library(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "gpt2")
    ours = load_backbone(BackboneConfig(backbone=str(folder)))[0].model
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", trust_remote_code=False)
    words = torch.arange(12).view(2, 6)
    assert ours.config._attn_implementation == ATTENTION
    assert torch.equal(ours(words).logits, theirs(words).logits)


def test_a_history_longer_than_the_context_of_the_backbone_is_served(tmp_path: Path) -> None:
    tokenizer = train_bpe(["a user has interacted with an item"], vocabulary=300)
    config = described("gpt2", len(tokenizer))
    config.n_positions = 96
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    dataset = build_dataset(taste_world(1, n_users=20, n_items=450, n_events=150).events)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(tmp_path)))
    for stage in model.stages:
        model.fit(dataset.train, dataset.validation, TrainConfig(epochs=1, batch_size=8), stage)
    assert model.net.backbone.context == 96
    room = 96 - Template.compile("recommend", model.tokenizer).n_fixed
    assert np.diff(dataset.train.interactions.indptr).max() > room
    assert np.isfinite(model.score(np.arange(20), dataset.train)).all()


@pytest.mark.parametrize("start", ["factors", "title", "random"])
def test_an_item_without_training_events_starts_at_the_scale_of_the_others(start: str, tmp_path: Path) -> None:
    """A row of zeros would meet a normalisation layer at zero: its gradient is then millions of times the others'."""
    world = taste_world(4, n_users=80, n_items=60, n_events=20)
    dataset = build_dataset(world.events, world.items)
    held_out = 17
    part = np.where(dataset.interactions.items == held_out, 2, dataset.part).astype(np.uint8)
    train = replace(dataset, part=part).train
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(save_backbone(tmp_path, "llama")), start=start))
    model.fit(train, None, TrainConfig(epochs=0), "pretrain")
    norms = model.net.collaborative.whole().norm(dim=1)
    assert norms[train.n_users + held_out] > 0.05 * norms.median()


@pytest.mark.slow
def test_a_real_pretrained_backbone_frozen_beats_popularity_on_the_demo_world(shared: Path) -> None:
    world = taste_world()
    dataset = build_dataset(world.events, world.items)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(shared / "backbones" / "stories260K")))
    assert not model.config.tuned
    for stage, epochs in (("pretrain", 4), ("finetune", 12)):
        model.fit(dataset.train, dataset.validation, replace(CLLM4Rec.config_class.training[stage], epochs=epochs), stage)
    masked = dataset.only("train", "validation")
    own, popular = (
        measure(one, dataset.train, dataset.test, masked).metrics["ndcg@100"]
        for one in (model, Popularity().fit(dataset.train))
    )
    assert own > popular
