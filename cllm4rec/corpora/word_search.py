"""Search of items by words: BM25 over their texts (Robertson and Zaragoza, 2009)."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from cllm4rec.corpora.item_words import count_words, split_words
from cllm4rec.messages import escaped, is_unicode, shorten

K1, B = 1.2, 0.75  # saturation of repeated words, and how much long texts are discounted
NEGATIONS = ("not", "no", "without")  # the next word is one to avoid, these left out:
FILLERS = ("a", "an", "the", "any", "some", "more", "too", "very")
# Nobody looks for these alone: they are not named where no text has them.
PARTICLES = "about and are as at by for from i in is it like me my of on or that to with"
FUNCTION_WORDS = {*FILLERS, *PARTICLES.split()}


class WordSearch:
    """BM25 of wishes over the texts of n items.

    The score of an item is the sum over the words of the wish of IDF * f (K1 + 1) / (f + K1 (1 - B + B L)),
    where f is how often the item's texts have the word, and L their length divided by the mean length. IDF is
    ln(1 + (n - m + 0.5) / (m + 0.5)) for a word of m items, which is never negative. The next word after
    `not`, `no` or `without` is subtracted, articles and the like left out.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        """Count words.

        Args:
            documents: texts of each item (n,).

        Raises:
            ValueError: there is no word in any text.
        """
        n = len(documents)
        counts = count_words(documents, np.ones(n, dtype=bool), bigrams=False, min_rows=1)
        if not counts.vocabulary:
            raise ValueError("the items have no texts: leave `wish` out, or prepare them with titles")
        self._numbers = {word: number for number, word in enumerate(counts.vocabulary)}
        weights = counts.matrix.tocsr().astype(np.float32)
        lengths = np.asarray(weights.sum(1)).ravel()
        with_word = np.bincount(weights.indices, minlength=len(counts.vocabulary))
        idf = np.log1p((n - with_word + 0.5) / (with_word + 0.5))
        discount = K1 * (1 - B + B * lengths / lengths.mean())
        rows = np.repeat(np.arange(n), np.diff(weights.indptr))
        weights.data = idf[weights.indices] * weights.data * (K1 + 1) / (weights.data + discount[rows])
        self._weights = weights.tocsc()

    def scores(self, wish: str) -> np.ndarray:
        """Scores of all items, float32 (n,); 0 for items with none of the words.

        Raises:
            ValueError: no text has a word of the wish.
        """
        if not isinstance(wish, str):
            raise ValueError(f"`wish` is {shorten(escaped(repr(wish)))}: expected words")
        shown = shorten(escaped(repr(wish)))
        if not is_unicode(wish):
            raise ValueError(f"`wish` {shown} is no Unicode text: write it as UTF-8")
        words = signed_words(wish)
        if not words:
            raise ValueError(f"`wish` {shown} has no word: write what items are about")
        signs = {word: sign for word, sign in words.items() if word in self._numbers}
        if not signs:
            raise ValueError(
                f"`wish` {shown}: the items' texts have none of its words: use words of titles or reviews"
            )
        columns = [self._numbers[word] for word in signs]
        summed = self._weights[:, columns] @ np.array([*signs.values()])
        return np.asarray(summed, dtype=np.float32).ravel()

    def unknown(self, wish: str) -> list[str]:
        """The distinct words of a wish that no text has; function words are not named."""
        words = [word for word in signed_words(wish) if word not in FUNCTION_WORDS]
        return [word for word in words if word not in self._numbers]

    def looks_for_something(self, wish: str) -> bool:
        """Whether a wish has a word to look for that a text has, and not only words to avoid."""
        return any(sign > 0 and word in self._numbers for word, sign in signed_words(wish).items())


def signed_words(wish: str) -> dict[str, float]:
    """The distinct words of a wish: 1 for those to look for, -1 for those to avoid.

    >>> signed_words("A warm strap, without any leather")
    {'a': 1.0, 'warm': 1.0, 'strap': 1.0, 'leather': -1.0}
    """
    words = split_words(pl.Series([wish]))[0].to_list()  # as in texts
    signs: dict[str, float] = {}
    avoided = False
    for word in words:
        if word in NEGATIONS:
            avoided = True
        elif not (avoided and word in FILLERS):
            signs.setdefault(word, -1.0 if avoided else 1.0)
            avoided = False
    return signs
