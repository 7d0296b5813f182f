"""Readings of a language model equal the hidden states that transformers gives, one text at a time."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto import AutoModelForCausalLM, AutoTokenizer

from cllm4rec.corpora.tokenizer import train_bpe
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.models.language.pretrained import Pretrained
from cllm4rec.models.readings import language
from cllm4rec.models.readings.item_vectors import item_vectors
from cllm4rec.models.readings.language import (
    LanguageEncoder,
    check_reads_without_mask,
    decoder_layers,
    states_after,
)
from tests.support.backbones import save_backbone, set_values
from tests.support.documents import NUMBERS, by_words
from tests.support.encoders import TITLES, save_language_model
from tests.support.families import save_family
from tests.support.gguf_files import write_gguf
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, object]] = {  # each keeps its layers in another place or runs them otherwise
    "gpt2": {},
    "gpt_neo": {"num_hidden_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "bloom": {},
    "falcon": {},
    "mpt": {},
    "gpt_neox": {},
    "mixtral": {"num_local_experts": 3},
    "gemma3_text": {"head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
}


def family(name: str) -> PreTrainedModel:
    """A small random model of three or four layers."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**(SIZES | FAMILIES[name]))
    return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()


def expected(folder: Path, layer: int, n_begin: int = 1, window: int = 24) -> np.ndarray:
    """Means of `hidden_states[layer]` over the words (n, d), one text at a time; zeros without words."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    rows = []
    for text in TITLES:
        tokens = torch.tensor([tokenizer(text)["input_ids"][:window]])
        with torch.no_grad():
            states = model(tokens, output_hidden_states=True).hidden_states[layer][0, n_begin:]
        rows.append(states.mean(0).numpy() if len(states) else np.zeros(states.shape[1]))
    return np.array(rows)


def encoder(folder: Path, depth: float) -> LanguageEncoder:
    return LanguageEncoder(Pretrained.read(str(folder)), depth, torch.float32)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(("depth", "layer"), [(0.01, 1), (0.67, 1), (1.0, 2)])
def test_a_reading_is_the_mean_of_the_states_of_the_words(
    architecture: str, depth: float, layer: int, tmp_path: Path
) -> None:
    folder = save_language_model(tmp_path / "model", architecture)
    read = encoder(folder, depth).encode(TITLES)
    assert read.dtype == np.float32
    assert np.abs(read).max() > 0.01
    np.testing.assert_allclose(read, expected(folder, layer), atol=1e-6)


def test_texts_are_cut_to_the_window(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "model")
    long = [TITLES[1] * 4, TITLES[1] * 5]
    read = encoder(folder, 1.0).encode(long)
    assert (read[0] == read[1]).all()


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = encoder(save_language_model(tmp_path / "model"), 1.0)
    together = read.encode(TITLES)
    monkeypatch.setattr(language, "TOKENS_AT_ONCE", 1)
    np.testing.assert_allclose(read.encode(TITLES), together, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(TITLES))
    np.testing.assert_allclose(read.encode([TITLES[n] for n in order]), together[order], atol=1e-6)


@pytest.mark.parametrize("in_config", [False, True])
def test_a_tokenizer_needs_no_end_token(in_config: bool, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "model", "llama")
    config_end = NUMBERS["</s>"] if in_config else None
    set_values(folder / "config.json", {"eos_token_id": config_end})
    tokenizer = by_words("<s> $A", eos=None)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # no token for a line break
    tokenizer.save_pretrained(folder)
    lamp, lamp_and_door = encoder(folder, 1.0).encode(["lamp", "lamp door"])
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()
    tokens = torch.tensor([[NUMBERS["<s>"], NUMBERS["lamp"], NUMBERS["door"]]])
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states[-1][0, 1:].numpy()
    np.testing.assert_allclose(lamp, states[0], atol=1e-6)
    np.testing.assert_allclose(lamp_and_door, states.mean(0), atol=1e-6)


def test_a_tokenizer_that_fails_is_called_that_of_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_language_model(tmp_path / "model")
    pretrained = Pretrained.read(str(folder), role="encoder")

    def fails(*_: object, **__: object) -> None:
        raise OverflowError("too long")

    monkeypatch.setattr(type(pretrained.tokenizer), "__call__", fails)
    line = refused(LanguageEncoder(pretrained, 1.0, torch.float32).encode, TITLES)
    assert line == "the encoder's tokenizer cannot read a text: too long"


@pytest.mark.parametrize("name", FAMILIES)
def test_states_of_every_layer_are_those_of_transformers(name: str) -> None:
    model = family(name)
    n_layers = model.config.num_hidden_layers
    tokens = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states = model(tokens, output_hidden_states=True).hidden_states
        assert len(states) == n_layers + 1
        for layer in range(1, n_layers + 1):
            torch.testing.assert_close(
                states_after(model, tokens, layer), states[layer], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_causal_models_are_read_without_a_mask(name: str, dtype: torch.dtype) -> None:
    check_reads_without_mask(family(name).to(dtype))


@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_a_model_that_reads_in_both_directions_is_refused_as_a_backbone_is(
    depth: float, tmp_path: Path, cache: Path
) -> None:
    """Its states of a text change with the padding of the batch."""
    folder = save_family(tmp_path / "model", "Gemma 3 (text)")
    world = taste_dataset(4, 40, 30, 10)
    assert item_vectors(world, folder, depth=depth).present.all()
    n_readings = len(list(cache.iterdir()))
    set_values(folder / "config.json", {"use_bidirectional_attention": True})
    line = refused(item_vectors, world, folder, depth=depth)
    reason = "gemma3_text reads words otherwise than as embeddings from left to right"
    assert line.startswith(f"encoder {str(folder)!r} cannot be loaded: {reason}")
    assert len(list(cache.iterdir())) == n_readings
    assert reason in refused(load_backbone, BackboneConfig(str(folder)))


def test_layers_above_are_not_computed() -> None:
    model = family("gemma3_text")
    above = decoder_layers(model)[2]
    assert isinstance(above, nn.Module)
    computed = []
    above.register_forward_hook(lambda *_: computed.append("above"))
    tokens = torch.ones(1, 4, dtype=torch.int64)
    with torch.inference_mode():
        states_after(model, tokens, 2)
        assert computed == []
        states_after(model, tokens, 3)
    assert computed == ["above"]


def test_a_model_without_a_list_of_layers_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    pretrained = Pretrained.read(str(save_language_model(tmp_path / "model")))
    pretrained.model.config.num_hidden_layers = 7
    line = refused(lambda: LanguageEncoder(pretrained, 0.5, torch.float32))
    assert line.startswith("llama: its layers are not in one list")
    assert "`depth=1`" in line


def test_fingerprints_tell_weights_layers_dtypes_and_tokenizers_apart(tmp_path: Path) -> None:
    folder, other = (save_language_model(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    pretrained = Pretrained.read(str(folder))
    assert encoder(folder, 0.6).fingerprint == encoder(folder, 0.5).fingerprint  # both are layer 1
    encoders = [
        encoder(folder, 0.5),
        encoder(folder, 1.0),
        encoder(other, 0.5),
        LanguageEncoder(pretrained, 0.5, torch.bfloat16),
    ]
    found = {each.fingerprint for each in encoders}
    train_bpe(["another text"], vocabulary=280).save_pretrained(folder)
    found.add(encoder(folder, 0.5).fingerprint)
    assert len(found) == 5


def test_a_gguf_file_reads_as_the_folder_it_is_made_from(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder = save_backbone(tmp_path / "model", "llama")
    file = write_gguf(folder, tmp_path / "model.gguf")
    from_file = encoder(file, 1.0)
    np.testing.assert_allclose(from_file.encode(TITLES), encoder(folder, 1.0).encode(TITLES), atol=1e-5)
    assert from_file.fingerprint != encoder(file, 0.5).fingerprint


@pytest.mark.slow
def test_gemma_reads_with_bos_what_transformers_reads() -> None:
    folder = os.environ.get("CLLM4REC_GEMMA")
    if folder is None:
        pytest.skip("no Gemma")
    films = ["Alien (1979)", "Aliens (1986)", "Pride and Prejudice (1995)"]
    read = LanguageEncoder(Pretrained.read(folder), 0.67, torch.bfloat16)
    assert read.layer == 12  # of 18
    vectors = read.encode(films)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for film, vector in zip(films, vectors, strict=True):
        tokens = torch.tensor([tokenizer(film)["input_ids"]])
        assert tokens[0, 0] == tokenizer.bos_token_id
        with torch.no_grad():
            states = model(tokens, output_hidden_states=True).hidden_states[12][0, 1:]
        mean = states.float().mean(0).numpy()
        assert np.linalg.norm(vector - mean) < 0.02 * np.linalg.norm(mean)  # bfloat16 has 8 bits
    alien, aliens, pride = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert alien @ aliens > alien @ pride
