"""Documents of pretrained backbones: recorded, kept after pretraining, refused where impossible."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from cllm4rec.commands import stages
from cllm4rec.corpora.content import ContentCorpus
from cllm4rec.corpora.documents import DocumentTokens
from cllm4rec.corpora.histories import HistoryCorpusOptions
from cllm4rec.corpora.history_batches import fill, prompt_batch
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged
from cllm4rec.models import load_stage
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import pretrained_run, set_values, small_dataset
from tests.support.commands import call, refusal
from tests.support.documents import by_words
from tests.support.interruption import StopAfter

CHAT = "{% for turn in messages %}{{ turn.role + ':' + turn.content + eos_token + '\n' }}{% endfor %}"
OTHER_CHAT = CHAT.replace("':'", "'> '")


@pytest.fixture
def chat_folder(folder: Path) -> Path:
    """A small model whose tokenizer has a chat template with an end of two tokens."""
    set_values(folder / "tokenizer_config.json", {"chat_template": CHAT})
    return folder


def untrained(folder: Path, **settings: str) -> CLLM4Rec:
    config = CLLM4RecConfig(backbone=str(folder), **settings)
    return CLLM4Rec(config).fit_stage(small_dataset().train, "pretrain", TrainConfig(epochs=0))


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_a_saved_model_records_its_document_and_scores_the_same(
    tune: str, chat_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, users = untrained(chat_folder, tune=tune), np.arange(5)
    decode = model.tokenizer.text_tokenizer.decode
    model.save(tmp_path / "saved")
    recorded = json.loads((tmp_path / "saved" / "model.json").read_text())["document"]
    assert [decode(recorded[name]) for name in ("begin", "between", "end")] == [
        "user:",
        "<|end|>\nassistant:",
        "<|end|>\n",
    ]
    assert len(recorded["end"]) == 2
    assert recorded["chat"] is True
    with caplog.at_level(logging.WARNING):
        loaded = CLLM4Rec.load(tmp_path / "saved")
    assert not caplog.records
    expected = model.score(users, small_dataset().train)
    np.testing.assert_array_equal(loaded.score(users, small_dataset().train), expected)


def test_a_template_that_is_left_out_is_recorded_as_such(chat_folder: Path) -> None:
    document = untrained(chat_folder, chat_template="off").tokenizer.document
    assert (document.begin, document.between, document.end, document.chat) == ((), (), (0,), False)


def test_a_template_that_has_changed_is_a_warning_with_both_texts(
    chat_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    untrained(chat_folder).save(tmp_path / "saved")
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": OTHER_CHAT})
    with caplog.at_level(logging.WARNING):
        CLLM4Rec.load(tmp_path / "saved")
    (record,) = caplog.records
    message = record.getMessage()
    assert "(begin: 'user:', now 'user>'; between: '<|end|>\\nassistant:', now" in message
    assert "space before a prompt: no, now yes" in message
    assert " end: " not in message and "\n" not in message
    assert str(tmp_path / "saved") in message


def test_finetuning_with_other_documents_is_refused_and_scoring_is_not(
    chat_folder: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = pretrained_run(data, chat_folder, tmp_path / "run")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": OTHER_CHAT})
    for flags in ([], ["--dry-run"], ["--resume"]):
        line = refusal("finetune", "--run", run, *flags)
        assert "finetune would read prompts or documents otherwise than pretrain did (begin: 'user:'" in line
        assert "now 'user>'" in line
        assert line.endswith(
            "train it again, or use the tokenizer and the version of cllm4rec that trained it"
        )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        call("evaluate", "--run", run, "--json", tmp_path / "metrics.json")
    assert ["begin: 'user:', now 'user>'" in record.getMessage() for record in caplog.records] == [True]
    assert (tmp_path / "metrics.json").is_file()
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": CHAT})
    call("finetune", "--run", run, "--epochs", 1)
    assert load_stage(RunFolder.open(run)).stage == "finetune"


def test_a_model_without_a_recorded_document_is_damaged(chat_folder: Path, tmp_path: Path) -> None:
    model = untrained(chat_folder)
    described = model._describe()
    del described["document"]
    with pytest.raises(ValueError, match="is damaged .model.json: key document is missing"):
        model._compare_document(tmp_path / "saved", described)


def test_a_stopped_run_is_not_resumed_with_another_document(
    chat_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, resume = tmp_path / "run", ["pretrain", "--output", tmp_path / "run", "--resume"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(stages.StopRequest, "__call__", StopAfter(3))
        pretrained_run(data, chat_folder, run)
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": OTHER_CHAT})
    assert "document is not as it was when training began" in refusal(*resume)
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": CHAT})
    call(*resume)
    assert load_stage(RunFolder.open(run)).tokenizer.document.chat


def test_finetuning_keeps_the_documents_of_pretraining(chat_folder: Path, data: Path, tmp_path: Path) -> None:
    run = pretrained_run(data, chat_folder, tmp_path / "run", "--max-minutes", 0.001)
    line = refusal("finetune", "--run", run, "--chat-template", "off")
    assert "--chat-template was fixed by pretraining (auto)" in line


@pytest.mark.parametrize("system", ["cllm4rec", "rsllm"])
def test_a_template_that_fails_is_refused_before_a_run_folder_is_made(
    system: str, chat_folder: Path, data: Path, tmp_path: Path
) -> None:
    failing = "{{ raise_exception('a system turn is missing') }}"
    set_values(chat_folder / "tokenizer_config.json", {"chat_template": failing})
    flags = ["--dataset", data, "--output", tmp_path / "run", "--backbone", chat_folder, "--system", system]
    line = refusal("pretrain", *flags)
    assert "a system turn is missing: set --chat-template to off" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("system", ["cllm4rec", "rsllm"])
def test_a_tokenizer_without_any_end_is_refused_before_a_run_folder_is_made(
    system: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    tokenizer = by_words(eos=None)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save_pretrained(folder)
    flags = ["--dataset", data, "--output", tmp_path / "run", "--backbone", folder, "--system", system]
    assert "no end token (eos_token) and no tokens for a line break" in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


def test_without_an_eos_the_configuration_of_the_model_names_the_end(folder: Path) -> None:
    set_values(folder / "tokenizer_config.json", {"eos_token": None})
    set_values(folder / "config.json", {"eos_token_id": [70, 0]})
    assert untrained(folder).tokenizer.document.end == (0,), "70 is a letter"


@torch.no_grad()
@pytest.mark.parametrize("readout", ["last", "pooled"])
def test_an_order_free_prompt_with_turns_around_it_does_not_see_the_order(
    chat_folder: Path, readout: str
) -> None:
    """What begins a document is ordinary text before the set of items, what is between is text after it."""
    backbone, words = load_backbone(BackboneConfig(str(chat_folder)))
    tokenizer = ExtendedTokenizer(words, backbone.n_text_tokens, 3, 20)
    net = CLLM4RecNet(backbone, CLLM4RecConfig(attention="bidirectional", readout=readout), 3, 20).eval()
    net.collaborative.fill(0.2 * torch.randn(23, backbone.width, generator=torch.Generator().manual_seed(1)))
    template = Template.compile("recommend", tokenizer)
    assert template.pieces[0].tolist() == list(tokenizer.document.begin)
    states = [
        net.user_states(
            prompt_batch(
                tokenizer,
                *fill(
                    template, tokenizer, np.array([1]), Ragged.from_lists([np.array(order)]), np.ones(1, bool)
                ),
            )
        )
        for order in ([3, 9, 4, 17], [17, 4, 3, 9], [3, 9, 4, 16])
    ]
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(states[0], states[2], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("kind", "without"), [("user", 8), ("item", 6)])
def test_gemma_reads_a_sentence_after_our_prompt_only_with_its_begin(kind: str, without: float) -> None:
    """Mean NLL of a sentence after a prompt without its user token, and after one with its item token."""
    folder = os.environ.get("CLLM4REC_GEMMA")
    if folder is None:
        pytest.skip("no Gemma")
    backbone, words = load_backbone(BackboneConfig(folder))
    tokenizer = ExtendedTokenizer(words, backbone.n_text_tokens, 1, 1)
    assert tokenizer.document == DocumentTokens((2,), (), (1,))
    net = CLLM4RecNet(backbone, CLLM4RecConfig(backbone=folder), 1, 1).eval()
    net.content.fill(0.02 * torch.randn(2, backbone.width, generator=torch.Generator().manual_seed(0)))

    def mean_nll(document: DocumentTokens) -> float:
        tokenizer.__dict__["document"] = document
        sentence = tokenizer.encode_main_texts(["The quick brown fox jumps over the lazy dog."])[0]
        user, item = (0, -1) if kind == "user" else (-1, 0)
        options = HistoryCorpusOptions(context=60, user_dropping=0.999)
        corpus = ContentCorpus([(kind, "description", user, item, sentence)], tokenizer, options, 1000)
        batch = corpus.batch(np.array([0]), 0)
        assert len(batch.ids) == (kind == "item")
        return float(net("content", batch)["content"]) / batch.n_targets

    document = tokenizer.document
    assert mean_nll(document) == pytest.approx(2.5, abs=0.7)
    assert mean_nll(replace(document, begin=())) > without
