"""Documents of titles, descriptions and reviews, and passes over them."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import HistoryCorpusOptions
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from tests.support.histories import content_corpus, examples_of, whole_epoch


def text_dataset() -> Dataset:
    """Two users and three items, some texts of which are empty or missing."""
    reviews, titles = ["a good book", "", None], ["the river", "", "a history of the end"]
    events = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"], "review_text": reviews})
    items = pl.DataFrame({"item_id": ["x", "y", "z"], "title": titles, "categories": ["", " ", "book"]})
    users = pl.DataFrame({"user_id": ["a", "b"], "biography": ["", "a reader"]})
    return Dataset.from_frame(events, items, users)


def test_every_text_makes_a_document_and_an_empty_one_makes_none(bpe: ExtendedTokenizer) -> None:
    dataset = text_dataset()
    found = {
        (
            kind,
            field,
            dataset.users["user_id"][user] if user >= 0 else "",
            dataset.items["item_id"][item] if item >= 0 else "",
            bpe.text_tokenizer.decode(words).strip(),
        )
        for kind, field, user, item, words in content_documents(dataset, bpe)
    }
    assert found == {
        ("review", "", "a", "x", "a good book"),
        ("item", "title", "", "x", "the river"),
        ("item", "title", "", "z", "a history of the end"),
        ("item", "categories", "", "z", "book"),
        ("user", "biography", "b", "", "a reader"),
    }
    assert content_documents(dataset.only(), bpe) == [], "texts belong to the events of their users and items"


def test_data_without_texts_has_no_documents_and_an_empty_corpus_no_passes(bpe: ExtendedTokenizer) -> None:
    bare = Dataset.from_frame(pl.DataFrame({"user_id": ["a"], "item_id": ["x"]}))
    assert content_documents(bare, bpe) == []
    corpus = ContentCorpus([], bpe, HistoryCorpusOptions(context=30), 100)
    assert corpus.selection(0).tolist() == corpus.selection(5).tolist() == []
    assert content_corpus(bpe, tokens_per_pass=0)[0].selection(0).tolist() == []


def test_a_document_is_its_written_prompt_its_words_and_the_end(bpe: ExtendedTokenizer) -> None:
    dataset = text_dataset()
    documents = content_documents(dataset, bpe)
    corpus = ContentCorpus(documents, bpe, HistoryCorpusOptions(context=100), 10**9)
    batch = corpus.batch(np.arange(len(documents)), 0)
    width = batch.tokens.shape[1]
    prompts = {
        "review": "user_{u} writes the following review for item_{i}:",
        "item": "item_{i} has the following {f}:",
        "user": "user_{u} has the following {f}:",
    }
    for row, (kind, field, user, item, words) in enumerate(documents):
        prompt = bpe.encode(prompts[kind].format(u=user, i=item, f=field))
        tokens = batch.tokens[row][batch.mask[row]].tolist()
        assert tokens == [*prompt, *words.tolist(), *bpe.document.end]
        read = [index - row * width for index in batch.state_index.tolist() if index // width == row]
        # From the prompt's last token on, which is never an ID.
        assert read == list(range(len(prompt) - 1, len(tokens) - 1))
    targets = [token for *_, words in documents for token in [*words.tolist(), *bpe.document.end]]
    assert batch.target_tokens.tolist() == targets


@pytest.mark.parametrize("context", [24, 64])
def test_a_long_text_is_cut_to_a_random_window_and_any_other_ends_with_the_end_token(
    bpe: ExtendedTokenizer, context: int
) -> None:
    corpus, documents = content_corpus(bpe, context=context)
    seen: dict[int, list[tuple[int, int]]] = {}
    for epoch in range(40):
        batch = corpus.batch(np.arange(len(documents)), epoch)
        assert batch.tokens.shape[1] <= context
        after = batch.tokens.flatten()[batch.state_index + 1]
        assert (after == batch.target_tokens).all()
        for row, example in enumerate(examples_of(batch, bpe)):
            text = [*documents[row][4].tolist(), *bpe.document.end]
            window = example["targets"]
            starts = [s for s in range(len(text) - len(window) + 1) if text[s : s + len(window)] == window]
            assert starts
            prompt = len(example["tokens"]) - len(window)
            assert len(window) == min(len(text), context - prompt)
            if len(window) == len(text):
                assert window[-1:] == [*bpe.document.end]
            elif len(starts) == 1:
                seen.setdefault(row, []).append((starts[0], len(text) - len(window)))
    assert bool(seen) == (context == 24)
    if seen:
        few = [starts for starts in seen.values() if starts[0][1] <= 3]
        assert all(start <= last for starts in seen.values() for start, last in starts)
        assert all({start for start, _ in starts} == set(range(starts[0][1] + 1)) for starts in few)
        assert np.mean([len({start for start, _ in starts}) > 1 for starts in seen.values()]) == 1.0


@pytest.mark.parametrize("share", [0.07, 0.31, 0.5, 0.99])
def test_passes_resume_where_the_previous_pass_stopped_and_keep_to_their_budget(
    bpe: ExtendedTokenizer, share: float
) -> None:
    total = int(content_corpus(bpe)[0].lengths.sum())
    budget = int(share * total)
    corpus, documents = content_corpus(bpe, tokens_per_pass=budget)
    order: list[int] = []
    read = 0
    n_passes = int(4 / share)
    for epoch in range(n_passes):
        chosen = corpus.selection(epoch)
        assert corpus.lengths[chosen].sum() <= budget + corpus.lengths.max()
        order += chosen.tolist()
        read += int(corpus.lengths[chosen].sum())
    for start in range(0, len(order) - len(documents) + 1, len(documents)):
        visited = order[start : start + len(documents)]
        assert sorted(visited) == list(range(len(documents))), "all before any comes again"
    assert len(order) >= 3 * len(documents)
    assert order[: len(documents)] != order[len(documents) : 2 * len(documents)]
    assert abs(read - n_passes * budget) <= corpus.lengths.max()


def test_a_pass_is_a_function_of_its_number(bpe: ExtendedTokenizer) -> None:
    budget = 300
    forward = [content_corpus(bpe, budget)[0].selection(epoch).tolist() for epoch in range(5)]
    corpus = content_corpus(bpe, budget)[0]
    assert [corpus.selection(epoch).tolist() for epoch in reversed(range(5))] == forward[::-1]


@pytest.mark.parametrize("tokens_per_pass", [150, 700])
def test_weights_of_a_content_pass_count_that_pass_alone(
    bpe: ExtendedTokenizer, tokens_per_pass: int
) -> None:
    corpus, _ = content_corpus(bpe, tokens_per_pass)
    for epoch in range(3):
        batches = whole_epoch(corpus, epoch, 4)
        occurring = {number for batch in batches for number in batch.ids.tolist()}
        total = sum(float(batch.id_weights.sum()) for batch in batches)
        assert total == pytest.approx(len(occurring), rel=1e-6)


def test_lengths_are_the_tokens_of_each_document(bpe: ExtendedTokenizer) -> None:
    corpus, _ = content_corpus(bpe, context=24)
    batch = corpus.batch(corpus.selection(0), 0)
    assert batch.mask.sum(1).tolist() == corpus.lengths[corpus.selection(0)].tolist()


def test_a_context_without_room_for_two_words_is_an_error(bpe: ExtendedTokenizer) -> None:
    with pytest.raises(ValueError, match="no room for two words"):
        content_corpus(bpe, context=6)
