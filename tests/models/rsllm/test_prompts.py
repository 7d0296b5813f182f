"""Unified prompts: titles and soft tokens, cut to the context."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from transformers import AutoTokenizer

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.candidates import title_groups
from cllm4rec.models.rsllm.config import FORMS, RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from tests.support.rsllm import TITLES, ragged, tokenizer, tokens_of, writer


def soft(item: int) -> int:
    return tokenizer().n_text_tokens + item


def test_an_item_is_the_tokens_of_its_title_and_a_soft_token() -> None:
    prompts, _ = writer().fill(ragged([1, 0], [3]), 200)
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    after = tokenizer().encode_words(" and chose next:", after_id=True)
    first = [*before, *tokens_of("Blue Chair Of Wood"), soft(1), *tokens_of("Red Lamp"), soft(0), *after]
    second = [*before, *tokens_of("Green Door"), soft(3), *after]
    assert prompts.tokens[0][prompts.mask[0]].tolist() == first
    assert prompts.tokens[1][prompts.mask[1]].tolist() == second
    assert prompts.tokens.ravel()[prompts.history_index].tolist() == [soft(1), soft(0), soft(3)]
    assert prompts.tokens.ravel()[prompts.query_index].tolist() == [soft(0), soft(3)]
    titles = [
        prompts.tokens.ravel()[prompts.title_index[prompts.title_rows == number]].tolist()
        for number in range(3)
    ]
    assert titles == [tokens_of("Blue Chair Of Wood"), tokens_of("Red Lamp"), tokens_of("Green Door")]


def test_text_only_prompts_leave_out_the_soft_tokens_and_id_only_prompts_the_titles() -> None:
    text, _ = writer("text").fill(ragged([1, 2]), 200, asked=False)
    comma = tokenizer().encode_words(",", after_id=True)
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    # the second item has no title
    assert text.tokens[0].tolist() == [*before, *tokens_of("Blue Chair Of Wood"), *comma, *comma]
    ids, _ = writer("ids").fill(ragged([1, 2]), 200, asked=False)
    assert ids.tokens[0].tolist() == [*before, soft(1), soft(2)]
    assert len(ids.title_index) == 0


def test_candidates_and_the_answer_follow_the_history() -> None:
    prompts, _ = writer().fill(ragged([0]), 200, ragged([3, 1]), writer().answers.take(np.array([3])))
    between = tokenizer().encode_words(" and of these candidates:", after_id=True)
    named = [*tokens_of("Green Door"), soft(3), *tokens_of("Blue Chair Of Wood"), soft(1)]
    before = tokenizer().encode_words("A user chose these items, the oldest first:")
    question = tokenizer().encode_words(" chose next:", after_id=True)
    answer = [*tokens_of("Green Door"), *tokenizer().document.end]
    whole = [*before, *tokens_of("Red Lamp"), soft(0), *between, *named, *question, *answer]
    assert prompts.tokens[0].tolist() == whole
    assert prompts.tokens[0][prompts.query_index[0]] == soft(0), "read before any candidate is named"
    assert prompts.tokens.ravel()[prompts.answer_index].tolist() == answer


def test_long_titles_are_cut_at_a_number_of_words() -> None:
    assert writer(title_words=2).titles.take(np.array([5])).values.tolist() == tokens_of("Old Oak")
    answer = [*tokens_of("Old Oak"), *tokenizer().document.end]
    assert writer(title_words=2).answers.take(np.array([5])).values.tolist() == answer


@pytest.mark.parametrize("form", FORMS)
def test_long_histories_keep_the_newest_items_and_never_lose_instruction_or_question(form: str) -> None:
    item_writer, history = writer(form), [0, 1, 3, 5, 4, 1, 0]
    whole, _ = item_writer.fill(ragged(history), 10_000)
    empty, _ = item_writer.fill(ragged([]), 10_000)
    for context in range(empty.tokens.shape[1], whole.tokens.shape[1] + 1):
        prompts, kept_items = item_writer.fill(ragged(history, [3]), context)
        n = int(prompts.mask[0].sum())
        assert n <= context
        items = kept_items.take(np.array([0])).values.tolist()
        assert items == history[len(history) - len(items) :]
        if len(items) < len(history):  # one more item would not fit
            assert n + item_writer.item_tokens.lengths[history[-len(items) - 1]] > context
        first = prompts.tokens[0][prompts.mask[0]].tolist()
        before = tokenizer().encode_words("A user chose these items, the oldest first:")
        after = tokenizer().encode_words(" and chose next:", after_id=True)
        assert first[: len(before)] == before
        assert first[-len(after) :] == after


def test_a_context_without_room_for_question_and_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="a context of 30 tokens has no room"):
        writer().fill(ragged([0]), 30, ragged([1, 3, 5]))


def test_a_history_without_items_is_read_at_the_end_of_the_instruction() -> None:
    prompts, _ = writer().fill(ragged([], [0]), 100, asked=False)
    n = len(tokenizer().encode_words("A user chose these items, the oldest first:"))
    assert prompts.query_index.tolist()[0] == n - 1
    assert len(prompts.history_index) == 1


def test_items_that_share_a_title_are_grouped() -> None:
    groups = title_groups(pl.DataFrame({"item_id": range(6), "title": TITLES}))
    assert groups[0] == groups[4], "letter case and outer spaces make no difference"
    assert len(set(groups.tolist())) == 5
    untitled = title_groups(pl.DataFrame({"item_id": ["a", "b"], "title": ["", None]}))
    assert untitled[0] != untitled[1], "to have no title is not to share one"
    assert title_groups(pl.DataFrame({"item_id": [5, 6]})).tolist() == [0, 1]


def test_a_title_without_spaces_is_cut_too() -> None:
    writer = PromptWriter(tokenizer(), ["x" * 4000, "a b"], "unified", 2)
    assert writer.titles.lengths.tolist()[0] == 16
    assert writer.titles.lengths.tolist()[1] < 16


def test_titles_in_the_real_gpt2_tokenizer(shared: Path) -> None:
    words = AutoTokenizer.from_pretrained(shared / "backbones" / "gpt2-tokenizer", trust_remote_code=False)
    extended = ExtendedTokenizer(words, len(words), 0, 2)
    prompts, _ = PromptWriter(extended, ["The Lamp", "A Door"], "unified", 8).fill(ragged([0, 1]), 100)
    text = extended.decode(prompts.tokens[0].tolist())
    assert text == "A user chose these items, the oldest first: The Lamp item_0 A Door item_1 and chose next:"


def test_titles_are_read_in_the_order_of_a_sentence_and_by_a_pretrained_model_whole() -> None:
    model = RSLLM()
    assert model._titles(["Lamp, The (1999)", ""], 2) == ["The Lamp (1999)", ""]
    assert model.config.most_title_words == 6
    assert RSLLMConfig(backbone="somewhere/gemma").most_title_words == 64
    assert RSLLMConfig(backbone="somewhere/gemma", title_words=3).most_title_words == 3
