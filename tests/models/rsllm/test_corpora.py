"""Examples of both stages, and the negatives and candidates in them."""

from typing import Any

import numpy as np
import polars as pl

from cllm4rec.corpora.rsllm import AnswerCorpus, ContrastiveCorpus, RSLLMCorpusOptions
from cllm4rec.data.candidates import title_groups
from cllm4rec.data.interactions import Interactions
from tests.support.rsllm import TITLES, ragged, tokenizer, tokens_of, writer


def events() -> Interactions:
    """User 0 took 1, 0, 3, 5; user 1 took 3 alone; user 2 took 4, 1."""
    return Interactions(np.array([0, 0, 0, 0, 1, 2, 2]), np.array([1, 0, 3, 5, 3, 4, 1]), 3, 6)


def groups() -> np.ndarray:
    return title_groups(pl.DataFrame({"title": TITLES}))


def contrast(hard: int = 0, **options: Any) -> ContrastiveCorpus:
    settings = RSLLMCorpusOptions(**{"context": 200, "length": 10, "negatives": 100, **options})
    return ContrastiveCorpus(events(), writer(), groups(), settings, np.tile(np.arange(hard), (3, 1)))


def test_stage_1_predicts_the_tokens_of_a_title_and_the_end_token_from_the_items_before() -> None:
    corpus = AnswerCorpus(events(), writer("text"), groups(), RSLLMCorpusOptions(200, 10))
    assert corpus.users.tolist() == [0, 2], "a single item answers nothing"
    batch = corpus.batch(np.array([1]), 0)
    answers = [*tokens_of(TITLES[1]), *tokenizer().document.end]
    assert batch.target_tokens.tolist() == answers
    written = {tuple(corpus.batch(np.array([0]), epoch).tokens[0].tolist()) for epoch in range(30)}
    taken = [1, 0, 3, 5]
    expected = set()
    for last in (1, 2, 3):  # any item but the first is the answer in some epoch
        prompts, _ = writer("text").fill(
            ragged(taken[:last]), 200, None, writer().answers.take(np.array([taken[last]]))
        )
        expected.add(tuple(prompts.tokens[0].tolist()))
    assert written == expected
    assert not any(token >= tokenizer().n_text_tokens for tokens in written for token in tokens)
    following = batch.tokens.ravel()[batch.state_index + 1]
    assert following.tolist() == answers, "each token is predicted from the token before it"


def test_stage_2_predicts_every_item_but_the_first_from_those_before_it() -> None:
    batch = contrast().batch(np.array([0, 1]), 0)
    items = batch.items
    assert items[batch.local_targets].tolist() == [0, 3, 5, 1]
    assert items[batch.local_history].tolist() == [1, 0, 3, 4]
    assert batch.history_rows.tolist() == [0, 0, 0, 1]
    read = batch.tokens.ravel()[batch.history_index] - tokenizer().n_text_tokens
    assert items[read].tolist() == [1, 0, 3, 4], "states are read at the soft tokens"
    assert batch.groups.tolist() == groups()[items].tolist()


def test_of_a_long_history_another_stretch_is_read_each_epoch() -> None:
    corpus = contrast(length=1)
    seen = set()
    for epoch in range(30):
        batch = corpus.batch(np.array([0]), epoch)
        items = batch.items
        seen.add((int(items[batch.local_history][0]), int(items[batch.local_targets][0])))
    assert seen == {(1, 0), (0, 3), (3, 5)}


def test_the_sample_is_the_same_in_all_micro_batches_of_a_step_only() -> None:
    corpus = contrast(negatives=3)
    batches = [corpus.batch(np.array([example]), 2, step=7) for example in (0, 1)]
    drawn = [batch.items[batch.local_sample].tolist() for batch in batches]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    samples = {tuple(sorted(corpus.sample(epoch, step).tolist())) for epoch in range(3) for step in range(10)}
    assert len(samples) > 5
    assert contrast().sample(0, 0).tolist() == list(range(6)), "all items, where there are no more"


def test_candidates_of_training_prompts_are_items_not_taken_and_share_no_title() -> None:
    batch = contrast(candidates=3).batch(np.array([1]), 0)
    tokens, n_text_tokens = batch.tokens[0], tokenizer().n_text_tokens
    assert "chose next" in tokenizer().decode(tokens[tokens < n_text_tokens].tolist())
    shown = batch.items[tokens[tokens >= n_text_tokens] - n_text_tokens].tolist()
    assert shown[0] == 4, "the history"
    assert 1 in shown[1:], "the answer"
    assert not {0, 4} & set(shown[1:]), "items of the history, and items that share a title with them"
    assert len(set(shown[1:])) == 3
