"""Wishes in words: does a list follow both a history and a wish?

    OMP_NUM_THREADS=1 python -m experiments.wishes --run runs/musical

A query for each held-out event with a review: the five words of the review of highest TF-IDF. IDF is that of
the training reviews, only their words count, and English stop words do not; of equal words the first in the
alphabet are taken. A query is never learned from. Only the event's item is to be found.

The rows: the history alone; the wish alone, by BM25, by the learned vectors of its words, or by the cosines
of what --encoder reads of the query and of the training reviews of items; and both. The flag --wish of
recommend is the row "history and BM25". Weights are chosen by NDCG@100 on validation events,
from WEIGHTS. The weight of BM25 in the package is printed too.

Prints NDCG@100 on test events, with 95 % intervals over events, and the paired differences of the two last
rows from their parts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cllm4rec import load
from cllm4rec.commands.entry import say
from cllm4rec.corpora.word_search import WordSearch
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.models.base import Recommender
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.readings.item_vectors import item_vectors, open_encoder
from cllm4rec.models.wishes import WEIGHT
from experiments.commands import argument_parser, ends_in_one_line
from experiments.libraries import required_library
from experiments.report import difference_cell, markdown_table

N_WORDS, K = 5, 100
WEIGHTS = (0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2)


@dataclass(frozen=True)
class Queries:
    """Queries of held-out events.

    Attributes:
        users, items: int64 (n,), of the events.
        texts: the words of each query.
    """

    users: np.ndarray
    items: np.ndarray
    texts: list[str]

    @classmethod
    def of(cls, dataset: Dataset, part: Literal["validation", "test"]) -> "Queries":
        """One query for each event of a part whose review has a word of the training reviews.

        Raises:
            SystemExit: the events have no reviews.
        """
        train, held_out = dataset.train.interactions, dataset.task(part).held_out.interactions
        if train.reviews is None or held_out.reviews is None:
            raise SystemExit("error: the events have no reviews: prepare with a column review_text")
        text = required_library("sklearn.feature_extraction.text", "experiments")
        vectoriser = text.TfidfVectorizer(token_pattern=r"\w+", stop_words=sorted(text.ENGLISH_STOP_WORDS))
        vectoriser.fit(train.reviews.to_list())
        names, found = vectoriser.get_feature_names_out(), []  # names are sorted
        for number, row in enumerate(vectoriser.transform(held_out.reviews.to_list())):
            best = row.indices[np.lexsort((row.indices, -row.data))][:N_WORDS]
            if len(best):
                found.append((number, " ".join(names[best])))
        events = np.array([number for number, _ in found], dtype=np.int64)
        return cls(held_out.users[events], held_out.items[events], [words for _, words in found])


@dataclass(frozen=True)
class Scores:
    """Scores of the items for the queries of a part, float32 (n, n_items); -inf at masked items.

    Attributes:
        history: of the user's history, in units of their standard deviation over the items.
        words: BM25.
        vectors: the cosine between an item's vector and the sum of those of the words, in such units.
        readings: the cosine between an encoder's vectors of item and query, in such units; None without one.
        items: int64 (n,), the items to be found.
        tie_order: int64 (n_items,).
    """

    history: np.ndarray
    words: np.ndarray
    vectors: np.ndarray
    items: np.ndarray
    tie_order: np.ndarray
    readings: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        model: Recommender,
        search: WordSearch,
        dataset: Dataset,
        part: Literal["validation", "test"],
        encoder: str | None = None,
    ) -> "Scores":
        """The scores of the queries of a part."""
        queries, task = Queries.of(dataset, part), dataset.task(part)
        history = standardised(model.score(queries.users, task.input))
        for row, user in enumerate(queries.users.tolist()):
            history[row, task.masked.interactions.history(user)] = -np.inf
        words = np.stack([search.scores(text) for text in queries.texts])
        vectors = standardised(vector_scores(model, queries.texts))
        readings = None if encoder is None else standardised(reading_scores(encoder, dataset, queries.texts))
        return cls(history, words, vectors, queries.items, dataset.tie_order, readings)

    def ndcg(
        self, history: float = 0.0, words: float = 0.0, vectors: float = 0.0, readings: float = 0.0
    ) -> np.ndarray:
        """NDCG@100 of each query (n,) by a weighted sum of the scores."""
        masked = np.where(np.isneginf(self.history), -np.inf, 0.0)
        scores = masked + words * self.words + vectors * self.vectors
        if self.readings is not None:
            scores = scores + readings * self.readings
        if history:
            scores = scores + history * self.history
        found = scores[np.arange(len(self.items)), self.items][:, None]
        before = (scores == found) & (self.tie_order < self.tie_order[self.items][:, None])
        ranks = ((scores > found) | before).sum(1)
        return np.where(ranks < K, 1 / np.log2(ranks + 2.0), 0.0)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Rows (n, n_items) with mean 0 and standard deviation 1; zeros if constant."""
    centred = scores - scores.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    return centred / np.where(deviation > 0, deviation, 1.0)


def vector_scores(model: Recommender, queries: list[str]) -> np.ndarray:
    """Cosines (n, n_items) of the items' vectors and the learned vectors of the words, weighted by IDF.

    Raises:
        SystemExit: the system has learned no words.
    """
    text: TextEmbeddings | None = getattr(getattr(model, "net", None), "item_text", None)
    if text is None or text.words is None:
        raise SystemExit(f"error: {model.name} has learned no words: take a run of cllm4rec or bag")
    numbers = {word: number for number, word in enumerate(text.word_list)}
    n_rows = torch.bincount(text.columns, minlength=len(numbers)).clamp(min=1)
    idf = torch.log((len(text.starts) - 1) / n_rows)
    items = model.item_vectors().float()
    unit = torch.nn.functional.normalize(items - items.mean(0), dim=1)
    wishes = torch.zeros(len(queries), items.shape[1])
    for row, query in enumerate(queries):
        known = [numbers[word] for word in query.split() if word in numbers]
        wishes[row] = idf[known] @ text.words.detach()[known]
    return (torch.nn.functional.normalize(wishes, dim=1) @ unit.T).numpy()


def reading_scores(encoder: str, dataset: Dataset, queries: list[str]) -> np.ndarray:
    """Cosines (n, n_items) of an encoder's vectors of queries and items, without the mean over the items."""
    items = item_vectors(dataset, encoder, standardise=False).values
    asked = open_encoder(encoder, None).encode(queries)
    mean = items.mean(0)
    read, wished = (torch.from_numpy(np.asarray(each - mean)).float() for each in (items, asked))
    cosines: np.ndarray = (
        torch.nn.functional.normalize(wished, dim=1) @ torch.nn.functional.normalize(read, dim=1).T
    ).numpy()
    return cosines


def main(run: Path, encoder: str | None) -> None:
    model = load(run)
    dataset = model._source_dataset()
    search = model._word_search()
    validation, test = (Scores.of(model, search, dataset, part, encoder) for part in ("validation", "test"))
    by = {"words": "BM25", "vectors": "vectors"} | ({} if encoder is None else {"readings": "encoder"})
    chosen = {
        part: max(WEIGHTS, key=lambda weight: validation.ndcg(1.0, **{part: weight}).mean()) for part in by
    }
    parts = {"history": test.ndcg(1.0)} | {name: test.ndcg(**{part: 1.0}) for part, name in by.items()}
    rows = parts | {
        f"history and {name}": test.ndcg(1.0, **{part: chosen[part]}) for part, name in by.items()
    }
    lines = []
    for name, values in rows.items():
        low, high = bootstrap_interval(values)
        others = [part for part in parts if part in name and part != name]
        differences = [difference_cell(values - parts[part]) for part in (*others, "")[:2] if part]
        lines.append(
            [
                name,
                f"{values.mean():.4f}",
                f"[{low:.4f}, {high:.4f}]",
                *differences,
                *[""] * (2 - len(differences)),
            ]
        )
    header = ["by", f"ndcg@{K}", "95 %", "minus history", "minus the wish alone"]
    say(f"{run}, {model.name}: {len(test.items):,} test queries, {len(validation.items):,} of validation")
    say("weights chosen on validation: " + ", ".join(f"{part} {weight:g}" for part, weight in chosen.items()))
    say(f"weight of BM25 in the package: {WEIGHT:g}\n\n{markdown_table(header, lines)}")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run of cllm4rec or bag on data with reviews")
    parser.add_argument("--encoder", help="reads queries and reviews: name or folder of a model")
    arguments = vars(parser.parse_args())
    with ends_in_one_line():
        main(**arguments)
