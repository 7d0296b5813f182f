"""Whether a language model's reading of titles carries meaning: neighbours of items, and correlations.

    python -m experiments.item_neighbours --backbone FOLDER --data datasets/ml-100k

Text similarity of two items: cosine of the standardised readings of their texts (`cllm4rec.item_vectors`).
Collaborative similarity: cosine of their columns of the training matrix, or of their factors (the
factorisation with which CLLM4Rec starts). Correlations are Spearman's, over all pairs of items with training
events. Shuffled: the texts are permuted among the items.

Data: the dataset folder seed0 that `experiments.recipes` wrote to DATA; its items have titles.

Prints a table of correlations, for the model and for its architecture with random weights, of titles as they
are, in natural order ("The Matrix" for "Matrix, The"), without their year, and of all texts; and the nearest
neighbours of the ten items with the most training events. `--output FILE.json` writes all figures.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import rankdata

from cllm4rec.commands.entry import say
from cllm4rec.corpora.titles import natural_title
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.writing import write_text
from cllm4rec.models.cllm4rec.initialisation import als_factors
from cllm4rec.models.readings.item_vectors import item_vectors
from experiments.commands import argument_parser, ends_in_one_line
from experiments.random_backbone import save_random_backbone
from experiments.report import markdown_table
from experiments.title_forms import without_year

PRETRAINED, RANDOM = "pretrained", "random weights"
AS_IS, NATURAL, NO_YEAR, ALL = "titles", "titles in natural order", "the same, without years", "all texts"
N_FACTORS, N_NEIGHBOURS = 64, 3

Similarities = Mapping[str, np.ndarray]  # name -> (n, n)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines (n, n) of the rows (n, d); of a zero row 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    return np.asarray(unit @ unit.T)


def pair_ranks(similarities: np.ndarray) -> np.ndarray:
    """Standardised ranks (n, n) of the similarities of pairs, ties averaged; 0 on the diagonal.

    The mean product of two such matrices over the pairs is Spearman's correlation.
    """
    pairs = np.triu_indices(len(similarities), 1)
    ranks = rankdata(similarities[pairs])
    ranks = (ranks - ranks.mean()) / max(float(ranks.std()), 1e-12)
    matrix = np.zeros(similarities.shape)
    matrix[pairs] = ranks
    return matrix + matrix.T


def correlations(
    text: np.ndarray, collaborative: np.ndarray, n_shuffles: int, seed: int
) -> tuple[float, np.ndarray]:
    """Spearman's correlation over pairs of items, and those with shuffled texts (n_shuffles,).

    Args:
        text: similarities (n, n) of the texts.
        collaborative: similarities (n, n) of the items.
        n_shuffles: permutations of the texts.
        seed: of the permutations.
    """
    text, collaborative = pair_ranks(text), pair_ranks(collaborative)
    n_ordered = len(text) * (len(text) - 1)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(text)) for _ in range(n_shuffles)]
    shuffled = [float((text[np.ix_(order, order)] * collaborative).sum() / n_ordered) for order in orders]
    return float((text * collaborative).sum() / n_ordered), np.array(shuffled)


def collaborative_similarities(train: Dataset, items: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Cosines of items (n, n), by training columns and by factors."""
    columns = train.interactions.matrix.T.toarray()[items].astype(np.float64)
    factors = als_factors(train.interactions, N_FACTORS, seed)[train.n_users :][items]
    return {"columns": cosines(columns), "factors": cosines(factors)}


def forms(dataset: Dataset) -> dict[str, tuple[Dataset, list[str] | None]]:
    """Name of a form of the items' texts -> the dataset with these texts, and the fields that are read."""
    titles = dataset.item_texts["title"]
    natural = [natural_title(title) for title in titles]
    changed = {NATURAL: natural, NO_YEAR: [without_year(title) for title in natural]}
    found: dict[str, tuple[Dataset, list[str] | None]] = {AS_IS: (dataset, ["title"])}
    for name, texts in changed.items():
        items = dataset.items.with_columns(pl.Series("title", texts))
        found[name] = (replace(dataset, items=items), ["title"])
    return found | {ALL: (found[NATURAL][0], None)}


def read_items(backbone: Path, dataset: Dataset, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Standardised readings (n_items, d) by weights and form of the texts.

    Raises:
        ValueError: the model cannot be read.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folders = {
            PRETRAINED: backbone,
            RANDOM: save_random_backbone(backbone, Path(temporary) / "random-weights", seed),
        }
        return {
            (weights, form): item_vectors(texts, folder, fields=fields).values
            for weights, folder in folders.items()
            for form, (texts, fields) in forms(dataset).items()
        }


def measured(
    texts: Mapping[tuple[str, str], np.ndarray], collaborative: Similarities, n_shuffles: int, seed: int
) -> list[dict[str, Any]]:
    """Correlations by weights, form and collaborative similarity, as rows of JSON."""
    rows = []
    for (weights, form), vectors in texts.items():
        similarities = cosines(vectors)
        for name, values in collaborative.items():
            correlation, shuffled = correlations(similarities, values, n_shuffles, seed)
            interval = np.quantile(shuffled, [0.025, 0.975]).tolist()
            row = {"weights": weights, "texts": form, "collaborative": name, "correlation": correlation}
            rows.append(row | {"shuffled": float(shuffled.mean()), "shuffled_interval": interval})
    return rows


def correlation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Table of the correlations."""
    lines = []
    for row in rows:
        low, high = row["shuffled_interval"]
        shuffled = f"{row['shuffled']:+.4f} [{low:+.4f}, {high:+.4f}]"
        names = [row["weights"], row["texts"], row["collaborative"]]
        lines.append([*names, f"{row['correlation']:+.4f}", shuffled])
    header = ["weights", "texts", "collaborative similarity of", "correlation", "shuffled texts"]
    return markdown_table(header, lines)


def neighbours(similarities: np.ndarray, item: int, n: int = N_NEIGHBOURS) -> np.ndarray:
    """Numbers of the n most similar items, without the item itself."""
    others = np.argsort(-similarities[item], kind="stable")
    return others[others != item][:n]


def frequent_items(train: Dataset, n: int) -> np.ndarray:
    """Numbers of the items with the most training events; of equal counts the lower number first."""
    counts = np.bincount(train.interactions.items, minlength=train.n_items)
    return np.argsort(-counts, kind="stable")[:n]


def neighbour_lists(
    similarities: Similarities, names: Sequence[str], items: np.ndarray
) -> dict[str, dict[str, list[str]]]:
    """Kind of similarity -> name of an item -> names of its nearest neighbours.

    Args:
        similarities: of all items.
        names: of all items.
        items: numbers of those in question.
    """
    return {
        kind: {names[item]: [names[other] for other in neighbours(values, item)] for item in items}
        for kind, values in similarities.items()
    }


def neighbour_table(lists: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Table of `neighbour_lists`."""
    items = list(next(iter(lists.values())))
    lines = [[item, *("; ".join(of_kind[item]) for of_kind in lists.values())] for item in items]
    return markdown_table(["item", *lists], lines)


def main(backbone: Path, data: Path, n_items: int, n_shuffles: int, seed: int, output: Path | None) -> None:
    folder = data / "seed0"
    if not folder.is_dir():
        raise SystemExit(f"error: {data} has no folder seed0: experiments.recipes makes it")
    if not backbone.is_dir():
        raise SystemExit(f"error: --backbone {backbone}: there is no such folder")
    train = Dataset.load(folder).train
    if "title" not in train.item_texts:
        raise SystemExit(f"error: the items of {data} have no titles: name another --data")
    try:
        readings = read_items(backbone, train, seed)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    trained = np.unique(train.interactions.items)  # numbers of the items with training events
    texts = {key: vectors[trained] for key, vectors in readings.items()}
    rows = measured(texts, collaborative_similarities(train, trained, seed), n_shuffles, seed)
    kinds = {weights: cosines(readings[weights, NATURAL]) for weights in (PRETRAINED, RANDOM)}
    names = [natural_title(title) for title in train.item_texts["title"]]
    lists = neighbour_lists(kinds, names, frequent_items(train, n_items))
    if output is not None:
        described = {"correlations": rows, "neighbours": lists, "shuffles": n_shuffles, "seed": seed}
        write_text(output, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    say(
        f"{data.resolve().name}, {len(trained):,} items with training events; Spearman's correlation over "
        f"pairs; of {n_shuffles} shuffles the mean, and the interval of 95 % of them:\n\n"
        f"{correlation_table(rows)}\n\nNearest neighbours by the readings of {NATURAL}:\n\n"
        f"{neighbour_table(lists)}"
    )


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a causal language model")
    parser.add_argument("--data", type=Path, required=True, help="folder that a recipe wrote")
    parser.add_argument(
        "--items", type=int, default=10, dest="n_items", help="items with neighbours (default: %(default)s)"
    )
    parser.add_argument(
        "--shuffles", type=int, default=100, dest="n_shuffles", help="permutations (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of shuffles, factors and random weights")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    with ends_in_one_line():
        main(**vars(_arguments()))
