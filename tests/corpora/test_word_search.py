"""Search of items by words: BM25 by hand, negation, and what is refused."""

import math
import re

import numpy as np
import pytest

from cllm4rec.corpora.word_search import WordSearch, signed_words

DOCUMENTS = [
    ["A warm guitar strap", "leather strap"],
    ["Guitar strings"],
    ["", "A WARM light, warm and bright"],
    [],
    ["Leather case"],
]


def bm25(word: str, item: int) -> float:
    """The score of a word by the formula of Robertson and Zaragoza."""
    words = [re.findall(r"\w+", " ".join(texts).lower()) for texts in DOCUMENTS]
    mean_length = sum(map(len, words)) / len(words)
    n_with = sum(word in each for each in words)
    idf = math.log(1 + (len(words) - n_with + 0.5) / (n_with + 0.5))
    f = words[item].count(word)
    return idf * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * len(words[item]) / mean_length))


@pytest.mark.parametrize("wish", ["warm", "Warm strap", "guitar strap strap", "strap, unheard of"])
def test_scores_are_sums_over_the_distinct_words(wish: str) -> None:
    scores = WordSearch(DOCUMENTS).scores(wish)
    words = set(re.findall(r"\w+", wish.lower()))
    expected = [sum(bm25(word, item) for word in words if bm25(word, item)) for item in range(5)]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_word_after_not_is_subtracted() -> None:
    scores = WordSearch(DOCUMENTS).scores("a strap, not leather")
    expected = [bm25("a", item) + bm25("strap", item) - bm25("leather", item) for item in range(5)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7)
    assert scores[4] < 0


@pytest.mark.parametrize(
    ("wish", "signs"),
    [
        ("Not new", {"new": -1.0}),
        ("not a rocket", {"rocket": -1.0}),
        ("Space without any more THE horror, a war", {"space": 1.0, "horror": -1.0, "a": 1.0, "war": 1.0}),
        ("हिन्दी", {"हिन्दी": 1.0}),
        ("cafe\u0301", {"café": 1.0}),
        ("warm WITHOUT leather or fur", {"warm": 1.0, "leather": -1.0, "or": 1.0, "fur": 1.0}),
        ("no, not this", {"this": -1.0}),
        ("red not red", {"red": 1.0}),
        ("!?", {}),
    ],
)
def test_words_of_a_wish_have_signs(wish: str, signs: dict[str, float]) -> None:
    assert signed_words(wish) == signs


def test_words_that_no_text_has_are_named_but_for_function_words() -> None:
    search = WordSearch(DOCUMENTS)
    assert search.unknown("a warm guitar") == []
    assert search.unknown("about some unheard guitar, not heard by me") == ["unheard", "heard"]


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ("unheard of", "`wish` 'unheard of': the items' texts have none of its words: use words of"),
        ("", "`wish` '' has no word: write what items are about"),
        ("not", "`wish` 'not' has no word: "),
        ("warm \udcff", r"`wish` 'warm \\udcff' is no Unicode text: write it as UTF-8"),
    ],
)
def test_wishes_without_a_known_word_are_refused(wish: str, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        WordSearch(DOCUMENTS).scores(wish)


def test_words_of_wishes_are_those_of_texts() -> None:
    """Combining marks are parts of words in both, and letters with accents are the same in either form."""
    search = WordSearch([["हिन्दी किताब"], ["cafe\u0301"], ["hindi"], ["café"]])
    assert np.flatnonzero(search.scores("हिन्दी")).tolist() == [0]
    for wish in ("café", "CAFE\u0301"):
        assert np.flatnonzero(search.scores(wish)).tolist() == [1, 3]


def test_a_wish_is_a_text() -> None:
    with pytest.raises(ValueError, match="^`wish` is 5: expected words"):
        WordSearch(DOCUMENTS).scores(5)  # type: ignore[arg-type]


def test_items_without_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="^the items have no texts: leave `wish` out"):
        WordSearch([[], [""]])
