"""The worked examples in the docstrings of batches, and batches on another device."""

import numpy as np
import torch

from cllm4rec.corpora.content import ContentCorpus
from cllm4rec.corpora.histories import HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.rsllm import AnswerCorpus, ContrastiveCorpus, RSLLMCorpusOptions
from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from tests.support.histories import corpora, histories, named_tensors
from tests.support.tokenizers import load_tokenizer

TITLES = [f"book {number}" for number in range(10)]


def tokenizer(n_users: int = 50) -> ExtendedTokenizer:
    words = load_tokenizer("bpe")
    return ExtendedTokenizer(words, len(words), n_users, 60)


def test_the_example_of_the_recommendation_batch() -> None:
    """Users with the items {5, 3} and {7, 2}: the first of each is kept."""
    extended, options = tokenizer(), HistoryCorpusOptions(context=20, mask_share=0.5, order="time")
    corpus = RecommendationCorpus(histories([[5, 3], [7, 2]], n_items=60), extended, options)
    batch = corpus.batch(np.array([0, 1]), 0)
    written = (
        f"user_{u} has interacted with item_{i}, user_{u} will interact with" for u, i in ((0, 5), (1, 7))
    )
    assert batch.tokens.tolist() == [extended.encode(text) for text in written]
    assert batch.ids.tolist() == [0, 50 + 5, 0, 1, 50 + 7, 1]
    assert batch.item_index.tolist() == [4, 14]
    assert batch.item_rows.tolist() == [0, 1]
    assert batch.query_index.tolist() == [9, 19]
    assert (batch.target_rows.tolist(), batch.target_items.tolist()) == ([0, 1], [3, 2])
    assert batch.excluded is not None
    assert (batch.excluded.rows.tolist(), batch.excluded.items.tolist()) == ([0, 1], [5, 7])
    assert (batch.n_targets, batch.n_tokens) == (2, 20)


def test_the_example_of_the_content_batch() -> None:
    """The title of item 4 and the biography of user 1."""
    extended = tokenizer()
    title, biography = extended.encode_texts(["the river", "a reader"])
    documents = [("item", "title", -1, 4, title), ("user", "biography", 1, -1, biography)]
    corpus = ContentCorpus(documents, extended, HistoryCorpusOptions(context=40), 1000)
    batch = corpus.batch(np.array([0, 1]), 0)
    assert batch.ids.tolist() == [50 + 4, 1]
    assert batch.target_tokens.tolist() == [
        *title,
        *extended.document.end,
        *biography,
        *extended.document.end,
    ]
    after = batch.tokens.flatten()[batch.state_index + 1]
    assert after.tolist() == batch.target_tokens.tolist()
    assert batch.n_targets == len(title) + len(biography) + 2


def test_the_examples_of_the_answer_and_the_contrastive_batch() -> None:
    """The history [7, 4], answered by item 9; sample {4, 8}, hard negative 2."""
    extended, groups = tokenizer(n_users=0), np.arange(10)
    train, options = histories([[7, 4, 9]], n_items=10), RSLLMCorpusOptions(context=100, length=10)
    title = {item: extended.encode_texts([TITLES[item]])[0].tolist() for item in (7, 4, 9)}
    before = extended.encode("A user chose these items, the oldest first:")
    after = extended.encode_words(" and chose next:", after_id=True)
    comma = extended.encode_words(",", after_id=True)

    answers = AnswerCorpus(train, PromptWriter(extended, TITLES, "text", 8), groups, options)
    epoch = next(e for e in range(100) if answers.batch(np.array([0]), e).target_tokens[-2] == title[9][-1])
    batch = answers.batch(np.array([0]), epoch)
    tokens = [*before, *title[7], *comma, *title[4], *comma, *after, *title[9], *extended.document.end]
    assert batch.tokens.tolist() == [tokens]
    assert batch.target_tokens.tolist() == [*title[9], *extended.document.end]
    n, n_answer = len(tokens), len(title[9]) + 1
    assert batch.state_index.tolist() == list(range(n - n_answer - 1, n - 1))
    assert batch.n_targets == n_answer

    unified = PromptWriter(extended, TITLES, "unified", 8)
    contrast = ContrastiveCorpus(train, unified, groups, options, np.array([[2]]))
    contrast.sample = lambda epoch, step: np.array([4, 8])  # type: ignore[method-assign]
    both = contrast.batch(np.array([0]), 0)
    soft_7, soft_4 = extended.n_text_tokens + 2, extended.n_text_tokens + 1  # numbered within the batch
    tokens = [*before, *title[7], soft_7, *title[4], soft_4, *after, *title[9], *extended.document.end]
    assert both.tokens.tolist() == [tokens]
    assert both.items.tolist() == both.groups.tolist() == [2, 4, 7, 8, 9]
    assert both.history_index.tolist() == [tokens.index(soft_7), tokens.index(soft_4)]
    assert both.history_rows.tolist() == [0, 0]
    assert both.local_history.tolist() == [2, 1]
    assert both.local_targets.tolist() == [1, 4]
    assert both.tokens.flatten()[both.title_index].tolist() == [*title[7], *title[4]]
    assert both.title_rows.tolist() == [0] * len(title[7]) + [1] * len(title[4])
    assert both.local_sample.tolist() == [1, 3]
    assert both.local_hard.tolist() == [[0]]
    assert both.n_targets == 2


def test_a_batch_moves_to_a_device_with_its_optional_records() -> None:
    extended = ExtendedTokenizer(load_tokenizer("bpe"), 1000, 100, 200)
    for kind, corpus in corpora(extended, sampled=5).items():
        batch = corpus.batch(np.arange(4), 0)
        moved = batch.to("meta")
        assert type(moved) is type(batch)
        assert named_tensors(moved).keys() == named_tensors(batch).keys()
        assert {tensor.device for tensor in named_tensors(moved).values()} == {torch.device("meta")}
        assert ("sample.items" in named_tensors(moved)) == (kind != "content")
