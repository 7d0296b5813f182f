"""Conformance of each family of language models: its own logits, its own inputs, its caches, its order."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.head import WordHead, output_layer
from cllm4rec.models.language.loading import check_backbone, load_backbone
from cllm4rec.models.rsllm.generation import Beginning, generate, likelihoods
from tests.support.families import (
    FAMILIES,
    WINDOW,
    random_model,
    relative_error,
    save_family,
    table_row,
)
from tests.support.tables import refused

PAGE = Path(__file__).parents[3] / "docs" / "backbones.md"
LENGTH = 5 * WINDOW
SHORTER = 3 * WINDOW  # a row with padding
each_family = pytest.mark.parametrize("name", FAMILIES)
CHANGED_LOGITS = ("Phi", "GPT-J", "CodeGen", "Gemma 2", "Granite", "Cohere")


@cache
def loaded(name: str, tune: str = "frozen") -> tuple[Backbone, PreTrainedModel]:
    """The backbone of a folder, and the same folder as the library loads it by default."""
    with TemporaryDirectory() as folder:
        save_family(Path(folder), name)
        backbone, _ = load_backbone(CLLM4RecConfig(backbone=folder, tune=tune, dtype="float32"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        return backbone.eval(), model.eval()


def texts(n_tokens: int) -> tuple[Tensor, Tensor]:
    """Two texts (2, LENGTH), longer than any window, and the mask: the second is padded on the right."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, n_tokens, (2, LENGTH), generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, SHORTER:] = False
    return tokens.masked_fill(~mask, 0), mask


def no_ids(backbone: Backbone) -> Tensor:
    return torch.zeros(1, backbone.width)


@each_family
@torch.no_grad()
def test_logits_of_words_are_those_of_the_model(name: str) -> None:
    backbone, model = loaded(name)
    tokens, mask = texts(backbone.n_text_tokens)
    expected = model(input_ids=tokens, attention_mask=mask.long()).logits
    found = backbone.word_logits(backbone(tokens, mask, no_ids(backbone)))
    assert found.dtype == torch.float32
    assert found.shape == expected.shape == (2, LENGTH, backbone.n_text_tokens)
    assert relative_error(found[mask], expected[mask]) <= 1e-5


@each_family
@torch.no_grad()
def test_padding_changes_nothing(name: str) -> None:
    backbone, _ = loaded(name)
    tokens, mask = texts(backbone.n_text_tokens)
    padded = backbone(tokens, mask, no_ids(backbone))[1:, :SHORTER]
    alone = backbone(tokens[1:, :SHORTER], mask[1:, :SHORTER], no_ids(backbone))
    assert relative_error(padded, alone) <= 1e-5


@each_family
def test_the_likelihood_of_words_and_its_gradients_are_those_of_the_model(name: str) -> None:
    """Of all weights: embeddings, layers, the output layer and its bias."""
    backbone, model = loaded(name, "full")
    tokens, mask = texts(backbone.n_text_tokens)
    states = backbone(tokens, mask, no_ids(backbone))[:, :-1][mask[:, 1:]]  # (T, d)
    targets = tokens[:, 1:][mask[:, 1:]]
    found = backbone.word_nll(states, targets)
    logits = model(input_ids=tokens, attention_mask=mask.long()).logits[:, :-1][mask[:, 1:]]
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    weights, of_model = (dict(network.named_parameters()) for network in (backbone.model, model))
    assert weights.keys() == of_model.keys()
    slopes = torch.autograd.grad(found, list(weights.values()), allow_unused=True)
    expected_slopes = torch.autograd.grad(expected, list(of_model.values()), allow_unused=True)
    largest = max(float(slope.abs().max()) for slope in expected_slopes if slope is not None)
    for weight, slope, exact in zip(weights, slopes, expected_slopes, strict=True):
        assert (slope is None) == (exact is None), weight
        if slope is not None and exact is not None:
            assert float((slope - exact).abs().max()) <= 1e-4 * largest, weight


@pytest.mark.parametrize("name", CHANGED_LOGITS)
@torch.no_grad()
def test_what_a_model_does_to_logits_cannot_be_left_out(name: str) -> None:
    """The random models are such that the test of logits would fail."""
    backbone, model = loaded(name)
    tokens, mask = texts(backbone.n_text_tokens)
    states = backbone(tokens, mask, no_ids(backbone))
    assert backbone.head != WordHead() or output_layer(backbone.model).bias is not None
    wrong = states @ backbone.output_embeddings.T
    expected = model(input_ids=tokens, attention_mask=mask.long()).logits
    assert relative_error(wrong[mask], expected[mask]) > 0.01


@torch.no_grad()
def test_the_soft_cap_in_attention_and_the_window_cannot_be_left_out() -> None:
    tokens, _ = texts(200)
    for name, change in (
        ("Gemma 2", {"attn_logit_softcapping": None}),
        ("Gemma 2", {"sliding_window": LENGTH}),
        ("Mistral", {"sliding_window": LENGTH}),
    ):
        model = random_model(name)
        changed = AutoModelForCausalLM.from_config(
            type(model.config)(**model.config.to_dict() | change), trust_remote_code=False
        )
        changed.load_state_dict(model.state_dict())
        assert relative_error(changed.eval()(tokens).logits, model(tokens).logits) > 0.01, name


def inputs_of(backbone: Backbone, tokens: Tensor, table: Tensor) -> Tensor:
    """What enters the layers for one text (L,): (L, d)."""
    entered: list[Tensor] = []
    hook = backbone.model.base_model.register_forward_pre_hook(
        lambda _, __, named: entered.append(named["inputs_embeds"]), with_kwargs=True
    )
    backbone(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool), table)
    hook.remove()
    return entered[0][0]


@each_family
@torch.no_grad()
def test_an_id_whose_row_is_that_of_a_word_has_the_states_of_that_word(name: str) -> None:
    backbone, _ = loaded(name)
    tokens, mask = texts(backbone.n_text_tokens)
    words = tokens[0, ::3]
    table = backbone.as_ids(backbone.token_embeddings[words])
    as_ids = tokens.clone()
    as_ids[0, ::3] = backbone.n_text_tokens + torch.arange(len(words))
    found, expected = (backbone(read, mask, table) for read in (as_ids, tokens))
    assert relative_error(found, expected) <= 1e-5


@each_family
@torch.no_grad()
def test_new_rows_enter_as_wide_as_words(name: str) -> None:
    backbone, model = loaded(name)
    n_words = backbone.n_text_tokens
    rows = ID_EMBEDDING_STD * torch.randn(200, backbone.width, generator=torch.Generator().manual_seed(0))
    entered = inputs_of(backbone, torch.arange(n_words + len(rows)), rows)
    width_of_words, width_of_ids = (
        part.square().mean().sqrt().item() for part in (entered[:n_words], entered[n_words:])
    )
    assert width_of_ids == pytest.approx(width_of_words, rel=0.05)
    own = model.get_input_embeddings()(torch.arange(n_words))
    assert torch.equal(entered[:n_words], own), "words enter as they enter the model"


@each_family
@torch.no_grad()
def test_answers_are_read_on_a_cached_prompt_as_without(name: str) -> None:
    backbone, _ = loaded(name)
    prompt, table = texts(backbone.n_text_tokens)[0][0, :40], no_ids(backbone)
    answers = [torch.tensor([7, 3, 5, 0]), torch.tensor([0])]
    found = likelihoods(backbone, prompt, answers, table)
    for n in (1, 12):  # twice: the kept beginning is not changed
        beginning = Beginning.of(backbone, prompt[:n], table)
        for _ in range(2):
            again = likelihoods(backbone, prompt, answers, table, beginning)
            assert torch.allclose(again, found, rtol=1e-4)
    for number, answer in enumerate(answers):
        whole = torch.cat([prompt, answer])[None]
        states = backbone(whole, torch.ones_like(whole, dtype=torch.bool), table)[0, len(prompt) - 1 : -1]
        log_p = backbone.word_logits(states).log_softmax(-1)[torch.arange(len(answer)), answer]
        assert found[number].item() == pytest.approx(log_p.mean().item(), rel=1e-4)


@each_family
@torch.no_grad()
def test_prompts_are_read_on_a_common_beginning_as_without(name: str) -> None:
    backbone, _ = loaded(name)
    table, n = no_ids(backbone), 12
    tokens = texts(backbone.n_text_tokens)[0][0, :40].repeat(3, 1)
    tokens[1:, n:] = tokens[1:, n:].flip(1)
    mask = torch.arange(40) < torch.tensor([40, 25, n + 1])[:, None]
    whole = backbone(tokens, mask, table)[:, n:]
    beginning = Beginning.of(backbone, tokens[0, :n], table)
    for _ in range(2):  # the kept beginning is not changed
        states = backbone(tokens[:, n:], mask[:, n:], table, cache=beginning.copies(3))
        assert relative_error(states[mask[:, n:]], whole[mask[:, n:]]) < 1e-4


@each_family
@torch.no_grad()
def test_generation_on_a_cached_prompt_is_that_without(name: str) -> None:
    backbone, _ = loaded(name)
    prompt, table = texts(backbone.n_text_tokens)[0][0, :40], no_ids(backbone)
    found = generate(backbone, prompt, [-1], 6, table)
    beginning = Beginning.of(backbone, prompt[:12], table)
    assert generate(backbone, prompt, [-1], 6, table, beginning=beginning) == found
    tokens = prompt
    for _ in range(6):
        mask = torch.ones_like(tokens[None], dtype=torch.bool)
        word = backbone.word_logits(backbone(tokens[None], mask, table)[0, -1]).argmax()
        tokens = torch.cat([tokens, word[None]])
    assert found == tokens[len(prompt) :].tolist()


@each_family
@torch.no_grad()
def test_a_set_is_read_without_its_order_or_bidirectional_attention_is_refused(
    name: str, tmp_path: Path
) -> None:
    backbone, _ = loaded(name)
    if not backbone.reads_sets():
        save_family(tmp_path, name)
        config = CLLM4RecConfig(backbone=str(tmp_path), attention="bidirectional", dtype="float32")
        line = refused(lambda: load_backbone(config))
        assert "`attention=bidirectional`" in line
        assert "set `attention` to causal" in line
        load_backbone(CLLM4RecConfig(backbone=str(tmp_path)))  # auto never fails
        return
    n_words, n_ids = backbone.n_text_tokens, 2 * WINDOW
    generator = torch.Generator().manual_seed(0)
    table = ID_EMBEDDING_STD * torch.randn(n_ids, backbone.width, generator=generator)
    order = torch.randperm(n_ids, generator=generator)
    ids = torch.arange(n_words, n_words + n_ids)
    rows = [torch.cat([torch.tensor([5, 9]), items, torch.tensor([4, 0])]) for items in (ids, ids[order])]
    tokens, mask = torch.stack(rows), torch.ones(2, n_ids + 4, dtype=torch.bool)
    mask[:, -1] = False
    one, other = backbone(tokens, mask, table, tokens >= n_words)
    at_set = slice(2, 2 + n_ids)
    assert relative_error(other[at_set], one[at_set][order]) <= 1e-5
    assert relative_error(other[[0, 1, -2]], one[[0, 1, -2]]) <= 1e-5
    causal = backbone(tokens, mask, table)
    assert relative_error(causal[1][at_set], causal[0][at_set][order]) > 1e-3, "the order is read else"


@each_family
def test_what_takes_no_positions_is_refused_before_its_weights_are_read(name: str, tmp_path: Path) -> None:
    save_family(tmp_path, name)
    config = CLLM4RecConfig(backbone=str(tmp_path), attention="bidirectional", dtype="float32")
    if name in ("BLOOM", "MPT"):
        assert "`attention=bidirectional`" in refused(lambda: check_backbone(config))
    else:
        check_backbone(config)


@each_family
def test_the_page_says_what_is_measured(name: str) -> None:
    backbone, _ = loaded(name)
    assert table_row(name, backbone) in PAGE.read_text("utf-8").splitlines()


def test_the_page_names_no_other_family() -> None:
    rows = [line for line in PAGE.read_text("utf-8").split("## Families")[1].split("\n## ")[0].splitlines()]
    names = [row.split("|")[1].strip() for row in rows if row.startswith("| ")][1:]
    assert names == list(FAMILIES)


@pytest.mark.parametrize(("name", "tokens"), [("GPT-2", 512), ("MPT", 512), ("OPT", 1024), ("BLOOM", 1024)])
def test_the_context_is_that_of_the_model(name: str, tokens: int) -> None:
    backbone, _ = loaded(name)
    assert backbone.context == tokens
    full = torch.ones(1, tokens, dtype=torch.int64)
    states = backbone(full, torch.ones_like(full, dtype=torch.bool), no_ids(backbone))
    assert states.isfinite().all()
