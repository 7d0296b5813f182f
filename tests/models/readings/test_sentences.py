"""Sentence encoders give the vectors of sentence-transformers, from folders that are not trusted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from cllm4rec.models.readings.item_vectors import item_vectors, open_encoder
from cllm4rec.models.readings.sentences import SentenceEncoder
from tests.support.encoders import MODULES, TITLES, save_sentence_encoder, write_json
from tests.support.tables import refused
from tests.support.worlds import taste_dataset


def encoded(folder: Path) -> np.ndarray:
    """Vectors of the titles (n, d) by the encoder that the folder's files select."""
    encoder = open_encoder(folder, None)
    assert isinstance(encoder, SentenceEncoder)
    return encoder.encode(TITLES)


def test_vectors_are_normalised_means_over_all_tokens(tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "model")
    model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    rows = []
    for title in TITLES:
        with torch.no_grad():
            states = model(torch.tensor([tokenizer(title.lower())["input_ids"]])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    np.testing.assert_allclose(encoded(folder), np.array(rows), atol=1e-6)


def test_vectors_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = save_sentence_encoder(tmp_path / "model")
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(encoded(folder), model.encode(TITLES), atol=1e-6)


def test_items_get_vectors_of_a_sentence_encoder_and_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = (save_sentence_encoder(tmp_path / str(seed), seed) for seed in (0, 1))
    world = taste_dataset(4, 40, 30, 10)
    first = item_vectors(world, folder)
    assert (item_vectors(world, other).values != first.values).any()

    def unread(*_: object) -> None:
        raise AssertionError("the texts are read again")

    monkeypatch.setattr(SentenceEncoder, "encode", unread)
    np.testing.assert_array_equal(item_vectors(world, folder).values, first.values)


def test_a_depth_is_refused(tmp_path: Path) -> None:
    line = refused(open_encoder, save_sentence_encoder(tmp_path / "model"), 0.5)
    assert line.startswith("`depth` is of causal language models")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "os.system"}, "its module os.system is none of Transformer, "),
        ({"type": "sentence_transformers.models.WordEmbeddings"}, "is none of Transformer, "),
        ({"type": "my_code.models.Transformer"}, "is none of Transformer, "),
        ({"path": "../elsewhere"}, "which is outside of the folder"),
    ],
)
def test_untrusted_modules_are_refused(change: dict[str, str], reason: str, tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "model")
    write_json(folder / "modules.json", [MODULES[0], MODULES[1] | change])
    line = refused(open_encoder, folder, None)
    assert line.startswith(f"sentence encoder {str(folder)!r} cannot be loaded: ")
    assert reason in line


def test_weights_other_than_safetensors_are_refused(tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "model")
    dense = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    write_json(folder / "modules.json", [*MODULES[:2], MODULES[2] | dense])
    assert "2_Dense has no model.safetensors" in refused(open_encoder, folder, None)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "it has no model.safetensors" in refused(open_encoder, folder, None)


@pytest.mark.parametrize("content", ["", "{", "7", '[{"idx": 0}]'])
def test_a_damaged_list_of_modules_is_refused(content: str, tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "model")
    (folder / "modules.json").write_text(content)
    line = refused(open_encoder, folder, None)
    assert line.startswith(f"sentence encoder {str(folder)!r} cannot be loaded: ")


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(open_encoder, save_sentence_encoder(tmp_path / "model"), None)
    assert line.endswith("which is not installed: pip install sentence-transformers (extra cllm4rec[text])")


def test_weights_that_do_not_fit_end_in_one_line(tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"hidden_size": 18})
    line = refused(lambda: open_encoder(folder, None).encode(TITLES))
    assert line.startswith(f"sentence encoder {str(folder)!r} cannot be loaded: ")
