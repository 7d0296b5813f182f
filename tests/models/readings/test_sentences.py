"""Sentence encoders give the vectors of sentence-transformers, from folders that are not trusted."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import AutoModel, AutoTokenizer

from cllm4rec.models.readings import sentences
from cllm4rec.models.readings.item_vectors import item_vectors, open_encoder
from cllm4rec.models.readings.sentences import MODULES as LIST
from cllm4rec.models.readings.sentences import SentenceEncoder, sentence_folder
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


def hub(
    monkeypatch: pytest.MonkeyPatch, listed: Path | Exception, others: Path | Exception
) -> list[list[str]]:
    """A hub that answers for the list of modules and for all files; the requests that it gets."""
    requests = []

    def download(name: str, allow_patterns: list[str]) -> str:
        requests.append(allow_patterns)
        answer = listed if allow_patterns == [LIST] else others
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(sentences, "snapshot_download", download)
    return requests


def http_error(kind: Callable[..., Exception], message: str) -> Exception:
    return kind(message, response=Mock())


@pytest.mark.parametrize(
    "error",
    [
        http_error(RepositoryNotFoundError, "404"),
        LocalEntryNotFoundError("not cached"),
        HFValidationError("no name of a repository"),
    ],
)
def test_a_name_that_is_not_at_the_hub_is_no_sentence_encoder(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = hub(monkeypatch, error, AssertionError())
    assert sentence_folder("some/model") is None
    assert len(requests) == 1


def test_a_name_at_the_hub_is_a_sentence_encoder_if_it_lists_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = hub(monkeypatch, tmp_path, tmp_path)
    assert sentence_folder("some/model") is None
    assert len(requests) == 1
    write_json(tmp_path / LIST, MODULES)
    assert sentence_folder("some/model") == tmp_path
    assert len(requests) == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        PermissionError(13, "Permission denied"),
        http_error(HfHubHTTPError, "401 Client Error"),
        http_error(GatedRepoError, "403 Client Error"),
        IncompleteSnapshotError("The cached snapshot is incomplete", snapshot_path="x"),
        RuntimeError("a defect\nof the library"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_failed_download_ends_in_one_line(
    error: Exception, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / LIST, MODULES)
    hub(monkeypatch, error if first else tmp_path, error)
    line = refused(sentence_folder, "some/model")
    assert line.startswith("encoder 'some/model' cannot be loaded: ")
    assert " ".join(str(error).split()) in line


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
