"""A run records the wording of its prompts; loading it with another wording says so."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.commands import stages
from cllm4rec.corpora.documents import DocumentTokens
from cllm4rec.corpora.prompts import OF_CLLM4REC, OF_RSLLM, TEMPLATES
from cllm4rec.models import load_stage
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.language.wording import document_changes, template_changes
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import pretrained_run
from tests.support.commands import call, refusal
from tests.support.interruption import StopAfter
from tests.support.rsllm import small_dataset, untrained

NAMES = {"cllm4rec": OF_CLLM4REC, "rsllm": (*OF_RSLLM, "separator")}


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> LanguageRecommender:
    """Each system on a language model, with initial weights."""
    new = CLLM4Rec() if request.param == "cllm4rec" else untrained()
    return new.fit_stage(small_dataset().train, "pretrain", TrainConfig(epochs=0))


def test_a_saved_model_records_its_templates(
    model: LanguageRecommender, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.save(tmp_path / "model")
    templates = json.loads((tmp_path / "model" / "model.json").read_text())["templates"]
    assert templates == {name: TEMPLATES[name] for name in NAMES[model.name]}
    with caplog.at_level(logging.WARNING):
        type(model).load(tmp_path / "model")
    assert not caplog.records


def test_another_wording_is_a_warning_that_names_the_template(
    model: LanguageRecommender,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model.save(tmp_path / "model")
    changed = NAMES[model.name][-1]
    old, new = TEMPLATES[changed], f"{TEMPLATES[changed]} then"
    monkeypatch.setitem(TEMPLATES, changed, new)
    with caplog.at_level(logging.WARNING):
        loaded = type(model).load(tmp_path / "model")
    (record,) = caplog.records
    message = record.getMessage()
    assert f"{changed}: {old!r}, now {new!r}" in message
    assert str(tmp_path / "model") in message
    assert not any(f"{name}: " in message for name in NAMES[model.name] if name != changed)
    assert loaded.score(np.array([0]), small_dataset().train).shape == (1, 60), "it is loaded all the same"


def test_a_stopped_run_is_not_resumed_with_another_wording(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a frozen backbone no weight, configuration or tokenizer shows that the wording has changed."""
    run, resume = tmp_path / "run", ["pretrain", "--output", tmp_path / "run", "--resume"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(stages.StopRequest, "__call__", StopAfter(3))
        pretrained_run(data, folder, run)
    old, new = TEMPLATES["collaborative"], "{user} bought {history}"
    with monkeypatch.context() as patched:
        patched.setitem(TEMPLATES, "collaborative", new)
        line = refusal(*resume)
    assert f"template 'collaborative' is {new!r} and was {old!r} when training began" in line
    call(*resume)
    assert load_stage(RunFolder.open(run)).name == "cllm4rec"


def test_finetuning_with_another_wording_is_refused_until_the_model_is_trained_anew(
    model: LanguageRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, config = small_dataset().train, TrainConfig(epochs=0)
    model.save(tmp_path / "model")
    changed = NAMES[model.name][-1]
    monkeypatch.setitem(TEMPLATES, changed, f"{TEMPLATES[changed]} then")
    loaded = type(model).load(tmp_path / "model")
    refusal_text = rf"^finetune would read prompts .* \({changed}: .*, now .*\): train it again"
    with pytest.raises(ValueError, match=refusal_text):
        loaded.fit_stage(dataset, "finetune", config)
    assert (
        loaded.fit_stage(dataset, "pretrain", config).fit_stage(dataset, "finetune", config).stage
        == "finetune"
    )


def test_of_long_wordings_the_first_difference_is_shown() -> None:
    shared = "a user has interacted with " * 20
    (change,) = template_changes({"next": f"{shared}films"}, {"next": f"{shared}books"})
    ending = shared[-20:]
    assert change == f"next: '...{ending}films', now '...{ending}books'"
    (change,) = template_changes({"next": "a" * 300}, {"next": "b" * 300})
    assert change == f"next: '{'a' * 75}...', now '{'b' * 75}...'", "each is cut"


def test_tokens_without_a_text_are_shown_as_numbers(model: LanguageRecommender) -> None:
    tokenizer = model.tokenizer.text_tokenizer
    trained_with = DocumentTokens((10**12,), (), (0,), chat=True)
    assert document_changes(trained_with, DocumentTokens((), (), (0,)), tokenizer) == [
        "begin: tokens [1000000000000], now []",
        "chat template: yes, now no",
    ]
    first, other = (tokenizer.encode(letter, add_special_tokens=False)[:1] for letter in ("é", "ż"))
    changes = document_changes(
        DocumentTokens(tuple(first), (), ()), DocumentTokens(tuple(other), (), ()), tokenizer
    )
    assert changes == [f"begin: tokens {first}, now {other}"], "parts of characters are no text"


def test_a_model_without_recorded_templates_is_damaged(model: LanguageRecommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    described = model._describe()
    described["templates"].popitem()
    with pytest.raises(ValueError, match="is damaged .model.json: templates has no"):
        model._compare_templates(tmp_path / "model", described)
