"""Tokens of texts with user and item IDs."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest

from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe, without_unused_tokens
from tests.support.tokenizers import N_ITEMS, N_USERS, SENTENCES, plain, running


def test_ids_are_single_tokens_and_words_are_those_of_running_text(tokenizer: ExtendedTokenizer) -> None:
    ids = tokenizer.encode("user_3 has interacted with item_7")
    assert ids == [tokenizer.user(3), *running(tokenizer, " has interacted with"), tokenizer.item(7)]
    assert tokenizer.user(3) == tokenizer.n_text_tokens + 3
    assert tokenizer.item(7) == tokenizer.n_text_tokens + N_USERS + 7
    assert len(tokenizer) == tokenizer.n_text_tokens + N_USERS + N_ITEMS


def test_no_space_token_between_ids_or_before_punctuation(tokenizer: ExtendedTokenizer) -> None:
    ids = tokenizer.encode("user_3 has interacted with item_7 item_0, user_3 will interact with")
    assert ids == [
        tokenizer.user(3),
        *running(tokenizer, " has interacted with"),
        tokenizer.item(7),
        tokenizer.item(0),
        *running(tokenizer, ","),
        tokenizer.user(3),
        *running(tokenizer, " will interact with"),
    ]


def test_words_before_an_id_and_texts_without_ids_are_tokenised_as_they_are(
    tokenizer: ExtendedTokenizer,
) -> None:
    assert tokenizer.encode("the river for user_2") == [*plain(tokenizer, "the river for"), tokenizer.user(2)]
    assert tokenizer.encode("a good book, and a bad one") == plain(tokenizer, "a good book, and a bad one")


@pytest.mark.parametrize(
    "text",
    [
        "user_3 has interacted with item_7",
        "user_9 item_19 item_0",
        "the river for user_2 has item_1 and item_2",
        "a good book, and a bad one",
        "item_5",
        "",
    ],
)
def test_decoding_gives_the_text_back(tokenizer: ExtendedTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(tokenizer.decode(tokenizer.encode(text))) == tokenizer.encode(text)


def test_only_whole_words_are_ids(tokenizer: ExtendedTokenizer) -> None:
    for text in ("superuser_3 is", "user_3b", "item_", "user_x"):
        assert max(tokenizer.encode(text)) < tokenizer.n_text_tokens
    assert tokenizer.encode("(item_7)")[-2] == tokenizer.item(7)


@pytest.mark.parametrize("text", ["", " ", "\n \t"])
def test_an_empty_text_has_no_tokens(tokenizer: ExtendedTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == []
    found = tokenizer.encode_texts([text, "book", text])
    assert [len(ids) for ids in found] == [0, len(running(tokenizer, " book")), 0]


def test_ids_out_of_range_are_refused(tokenizer: ExtendedTokenizer) -> None:
    with pytest.raises(ValueError, match="user number 10 is out of range: there are 10 users"):
        tokenizer.encode("user_10 has")
    with pytest.raises(ValueError, match="item number 20 is out of range: there are 20 items"):
        tokenizer.encode("item_20")
    with pytest.raises(ValueError, match="item number -1 is out of range"):
        tokenizer.item(-1)
    with pytest.raises(ValueError, match="user number 10 is out of range"):
        tokenizer.user(10)


def test_texts_after_a_prompt_are_tokenised_as_running_text(tokenizer: ExtendedTokenizer) -> None:
    texts = ["a good book", " it has the end ", "river"]
    found = tokenizer.encode_texts(texts)
    assert [ids.tolist() for ids in found] == [running(tokenizer, " " + text.strip()) for text in texts]
    assert all(ids.dtype == np.int64 for ids in found)
    assert tokenizer.encode_texts([]) == []


def test_a_trained_vocabulary_encodes_every_text_and_ends_with_its_end_token() -> None:
    words = train_bpe(["only these words"], 300)
    extended = ExtendedTokenizer(words, len(words), 1, 1)
    assert extended.document.end == (0,)
    for text in ("Ærøskøbing 漢字", "tab\tand\nline", "<>&\\"):
        assert words.decode(plain(extended, text)) == text
    assert len(train_bpe(SENTENCES, 300)) == 300
    assert train_bpe(SENTENCES, 300).get_vocab() == train_bpe(SENTENCES, 300).get_vocab()


def test_texts_beyond_the_tokenizers_limit_are_read_without_a_warning(tokenizer: ExtendedTokenizer) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    limited = copy.deepcopy(tokenizer.text_tokenizer)
    limited.model_max_length = 3
    try:
        tokens = replace(tokenizer, text_tokenizer=limited).encode_texts(["an old man and the sea"])
    finally:
        logger.removeHandler(handler)
    assert len(tokens[0]) > 3
    assert not records


def test_tokens_that_some_texts_do_not_need_are_forgotten() -> None:
    """The other texts are encoded as before; unknown ones still can be, in other tokens."""
    kept = ["the river and the boat", "a river of books", "the boats"]
    tokenizer = train_bpe([*kept, "xylophone xylophones", "the xylophone"])
    forgetful = without_unused_tokens(tokenizer, kept)
    assert len(forgetful) == len(tokenizer)
    for text in kept:
        assert forgetful(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert any("xylo" in token for token in tokenizer.get_vocab())
    assert not any("xyl" in token for token in forgetful.get_vocab())
    assert forgetful.decode(forgetful("the xylophone")["input_ids"]) == "the xylophone"
    assert forgetful.eos_token == tokenizer.eos_token
