"""Items without any event, from their texts alone: how well are they recommended?

    OMP_NUM_THREADS=1 python -m experiments.cold_items --data datasets/beauty --split mi4rec_split.tsv.gz \\
        --output runs/cold

SPLIT is a table of user_id, item_id and split: train, warm_val and warm_test are parts of the events that the
systems are trained on, cold_val and cold_test those of items that no training sees. DATA is a folder that
`experiments.recipes` wrote.

CLLM4Rec and bag are trained with their defaults, and `adapted_to` the cold items, as `cllm4rec extend` does:
nothing is trained on. Compared with:

  chance            expected of random lists
  TF-IDF            summed cosines of an item's TF-IDF with those of the history
  text prior        x C of EASE with text prior, without any event: C from the vectors of texts
  ridge             factors of the events; those of cold items by ridge regression from vectors of texts

Vectors of texts are those of the words, or of --encoder, which CLLM4Rec and bag then read too. Penalties of
the two last rows are chosen on cold_val, for each set of items.

Prints Recall@20 and NDCG@100 of the cold test events, among cold test items and among all but cold_val, with
95 % intervals over users. Then NDCG@100 of the warm test events, without and with the cold items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch

from cllm4rec import load, measure
from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.extension import extended
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.cllm4rec.initialisation import als_factors
from cllm4rec.models.readings.text_vectors import text_vectors
from cllm4rec.ranking import TopK
from experiments.commands import argument_parser, ends_in_one_line, run_command
from experiments.libraries import required_library
from experiments.prepared import prepare_once
from experiments.recipes.recipe import EVENTS, ITEMS
from experiments.report import markdown_table

PARTS = {"train": "train", "warm_val": "validation", "warm_test": "test"}
PENALTIES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
N_FACTORS, USERS_AT_ONCE, K_RECALL, K_NDCG = 128, 512, 20, 100
Scorer = Callable[[np.ndarray], np.ndarray]  # numbers of users (B,) -> scores (B, n_items)


@dataclass(frozen=True)
class ColdItems:
    """A dataset with cold items, and their held-out events.

    Attributes:
        dataset: training events of warm items, and all items.
        held_out: part of the cold events -> their numbers, (n_users, n_items + 1). The last column has those
            of items without a title.
        n_warm: the items below this number are warm.
    """

    dataset: Dataset
    held_out: dict[str, sp.csr_array]
    n_warm: int

    @classmethod
    def of(cls, dataset: Dataset, items: pl.DataFrame, events: pl.DataFrame) -> "ColdItems":
        """Add items to a dataset.

        Args:
            dataset: of the warm items.
            items: the cold ones with a title; others cannot be recommended, and count as missed.
            events: user_id, item_id and split of the cold events.
        """
        wide = extended(dataset, items=items).dataset
        held_out = {}
        for part in ("cold_val", "cold_test"):
            of_part = events.filter(pl.col("split") == part)
            users = wide.user_ids.index(of_part["user_id"], "user")
            found = wide.item_ids.find(of_part["item_id"])
            cells = (np.ones(len(users)), (users, np.where(found < 0, wide.n_items, found)))
            held_out[part] = sp.csr_array(cells, shape=(wide.n_users, wide.n_items + 1))
        return cls(wide, held_out, dataset.n_items)

    def excluded(self, part: str, among_all: bool) -> np.ndarray:
        """Items that lists of a part may not hold, bool (n_items,)."""
        may = np.diff(self.held_out[part].tocsc().indptr)[:-1] > 0
        if among_all:
            may[: self.n_warm] = True
        return ~may

    def measured(self, scorer: Scorer, part: str, among_all: bool) -> tuple[np.ndarray, np.ndarray]:
        """Recall@20 and NDCG@100 of the users with cold events of a part, each (n,)."""
        held_out, seen = self.held_out[part], self.dataset.train.interactions.matrix
        users = np.flatnonzero(np.diff(held_out.indptr))
        excluded = self.excluded(part, among_all)
        tie_order = torch.from_numpy(self.dataset.tie_order)
        recalls, ndcgs = [], []
        discounts = 1 / np.log2(np.arange(K_NDCG) + 2)
        for start in range(0, len(users), USERS_AT_ONCE):
            batch = users[start : start + USERS_AT_ONCE]
            scores = np.array(scorer(batch), dtype=np.float32)
            scores[:, excluded] = -np.inf
            scores[seen[batch].nonzero()] = -np.inf
            best = TopK(len(batch), K_NDCG, tie_order)
            best.offer(torch.from_numpy(scores), 0)
            rows, items = np.arange(len(batch))[:, None], best.items.numpy()
            hits = np.asarray(held_out[batch].toarray())[rows, items] * (items >= 0)  # (B, 100)
            n_held_out = held_out[batch].sum(1).astype(int)
            recalls.append(hits[:, :K_RECALL].sum(1) / np.minimum(n_held_out, K_RECALL))
            ideal = discounts.cumsum()[np.minimum(n_held_out, K_NDCG) - 1]
            ndcgs.append(hits @ discounts / ideal)
        return np.concatenate(recalls), np.concatenate(ndcgs)


def chance(cold: ColdItems, among_all: bool) -> tuple[np.ndarray, np.ndarray]:
    """Expected Recall@20 and NDCG@100 of random lists, of each user (n,)."""
    held_out, excluded = cold.held_out["cold_test"], cold.excluded("cold_test", among_all)
    users = np.flatnonzero(np.diff(held_out.indptr))
    n_seen = np.diff(cold.dataset.train.interactions.indptr)[users] if among_all else 0
    n, n_listed = held_out[users].sum(1).astype(int), (~excluded).sum() - n_seen
    share = held_out[users, :-1].sum(1) / n_listed  # of hits, at each rank; the last column is never listed
    gains = (1 / np.log2(np.arange(K_NDCG) + 2)).cumsum()
    return (
        share * np.minimum(n_listed, K_RECALL) / np.minimum(n, K_RECALL),
        share * gains[np.minimum(n_listed, K_NDCG) - 1] / gains[np.minimum(n, K_NDCG) - 1],
    )


def tfidf_neighbours(cold: ColdItems) -> Scorer:
    """Summed cosines of the TF-IDF of titles."""
    text = required_library("sklearn.feature_extraction.text", "experiments")
    titles = cold.dataset.items["title"].to_list()
    vectoriser = text.TfidfVectorizer(token_pattern=r"\w+").fit(titles[: cold.n_warm])
    vectors = vectoriser.transform(titles).astype(np.float32)  # rows have length 1
    sums = cold.dataset.train.interactions.matrix @ vectors  # (n_users, words)
    return partial(_sparse_products, sums, vectors.T.tocsr())


def _sparse_products(users: sp.csr_matrix, items: sp.csr_matrix, numbers: np.ndarray) -> np.ndarray:
    """Products of rows of users and all items."""
    return np.asarray((users[numbers] @ items).toarray())


def text_prior(cold: ColdItems, vectors: np.ndarray) -> list[Scorer]:
    """x C of EASE with text prior, for each of `PENALTIES`: C = -P / diag(P) by columns, P = (F'F + p I)^-1.

    Args:
        cold: the items.
        vectors: F, float64 (n_items, D), rows of length 1.
    """
    histories = cold.dataset.train.interactions.matrix
    gram, scorers = vectors.T @ vectors, list[Scorer]()
    for penalty in PENALTIES:
        inner = np.linalg.inv(gram + penalty * np.eye(len(gram)))
        mapped = vectors @ inner  # P = (I - F inner F') / p, by Woodbury
        diagonal = 1 - np.einsum("jd,jd->j", mapped, vectors)
        scorers.append(partial(_prior_scores, histories, mapped, vectors / diagonal[:, None]))
    return scorers


def _prior_scores(
    histories: sp.csr_matrix, mapped: np.ndarray, scaled: np.ndarray, users: np.ndarray
) -> np.ndarray:
    """The rows of X F inner F' / diag(P) of some users."""
    return np.asarray(histories[users] @ mapped @ scaled.T)


def ridge(cold: ColdItems, vectors: np.ndarray) -> list[Scorer]:
    """Factors of users and items, those of cold items by ridge regression, for each of `PENALTIES`."""
    train, n_users, n_warm = cold.dataset.train.interactions, cold.dataset.n_users, cold.n_warm
    factors = als_factors(train, N_FACTORS, seed=0).astype(np.float64)
    users, items, scorers = factors[:n_users], factors[n_users:], list[Scorer]()
    inputs, mean = vectors[:n_warm], items[:n_warm].mean(0)
    for penalty in PENALTIES:
        normal = inputs.T @ inputs + penalty * np.eye(vectors.shape[1])
        weights = np.linalg.solve(normal, inputs.T @ (items[:n_warm] - mean))
        predicted = np.concatenate([items[:n_warm], vectors[n_warm:] @ weights + mean])
        scorers.append(partial(_products, users, predicted))
    return scorers


def _products(users: np.ndarray, items: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Inner products of factors."""
    return np.asarray(users[numbers] @ items.T)


def best_on_validation(cold: ColdItems, scorers: list[Scorer], among_all: bool) -> Scorer:
    """The scorer of largest NDCG@100 of cold_val, among cold items or among all."""
    qualities = [cold.measured(scorer, "cold_val", among_all)[1].mean() for scorer in scorers]
    return scorers[int(np.argmax(qualities))]


def prepared(data: Path, split: Path, output: Path) -> tuple[Dataset, pl.DataFrame, pl.DataFrame]:
    """The dataset of the warm items; the cold items; and their events with split."""
    events = pl.read_csv(data / f"{EVENTS}.gz", separator="\t", quote_char=None)
    items = pl.read_csv(data / f"{ITEMS}.gz", separator="\t", quote_char=None)
    parts = pl.read_csv(split, separator="\t")
    named = events.join(parts, on=["user_id", "item_id"])
    warm = named.filter(pl.col("split").is_in([*PARTS]))
    output.mkdir(parents=True, exist_ok=True)
    tables = {"--interactions": output / "warm.tsv", "--split": output / "parts.tsv"}
    warm.drop("split").write_csv(tables["--interactions"], separator="\t")
    warm.select("user_id", "item_id", part=pl.col("split").replace_strict(PARTS)).write_csv(
        tables["--split"], separator="\t"
    )
    tables["--items"] = data / f"{ITEMS}.gz"
    prepare_once(output / "dataset", tables, {"--split-column": "part"})
    cold = named.filter(~pl.col("split").is_in([*PARTS])).select("user_id", "item_id", "split")
    rows = items.filter(pl.col("item_id").is_in(cold["item_id"].unique().implode()))
    titled = rows.filter(pl.col("title").is_not_null() & (pl.col("title") != ""))
    return Dataset.load(output / "dataset"), titled, cold


def trained(output: Path, encoder: str | None) -> dict[str, Path]:
    """The runs of CLLM4Rec and bag; an interrupted training resumes, other settings are refused."""
    read = [] if encoder is None else ["--encoder", encoder]
    runs = {"CLLM4Rec": output / "cllm4rec", "bag": output / "bag"}
    shared = ["--dataset", output / "dataset", "--resume", *read]
    run_command("pretrain", "--output", runs["CLLM4Rec"], *shared)
    run_command("finetune", "--run", runs["CLLM4Rec"], "--resume")
    run_command("pretrain", "--output", runs["bag"], "--system", "bag", *shared)
    return runs


def cells(values: np.ndarray) -> str:
    """The mean of (n,) and its interval."""
    low, high = bootstrap_interval(values)
    return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"


def main(data: Path, split: Path, output: Path, encoder: str | None) -> None:
    dataset, items, events = prepared(data, split, output)
    cold = ColdItems.of(dataset, items, events)
    read = text_vectors(EASEConfig(encoder=encoder, text_prior=True), cold.dataset).values.astype(np.float64)
    centred = read - read[: cold.n_warm].mean(0)
    vectors = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    candidates = {
        "ridge": ridge(cold, vectors),
        "text prior": text_prior(cold, vectors),
        "TF-IDF": [tfidf_neighbours(cold)],
    }
    warm = []
    for name, run in trained(output, encoder).items():
        model = load(run)
        adapted = model.adapted_to(cold.dataset)
        candidates[name] = [partial(adapted.score, seen=cold.dataset.seen)]
        without, with_cold = (
            measure(each, of, "test", metrics=["ndcg"], ks=[K_NDCG]).metrics[f"ndcg@{K_NDCG}"]
            for each, of in ((model, dataset), (adapted, cold.dataset))
        )
        warm.append([name, f"{without:.4f}", f"{with_cold:.4f}"])
    lines = []
    for name in ("CLLM4Rec", "bag", "ridge", "text prior", "TF-IDF", "chance"):
        row = [name]
        for among_all in (False, True):
            if name == "chance":
                by_user = chance(cold, among_all)
            else:
                scorer = best_on_validation(cold, candidates[name], among_all)
                by_user = cold.measured(scorer, "cold_test", among_all)
            row += [cells(values) for values in by_user]
        lines.append(row)
    header = ["system", f"recall@{K_RECALL}, cold", f"ndcg@{K_NDCG}, cold"]
    header += [f"recall@{K_RECALL}, all", f"ndcg@{K_NDCG}, all"]
    n_cold, n_all = ((~cold.excluded("cold_test", among_all)).sum() for among_all in (False, True))
    say(f"\ncold test events, among {n_cold:,} cold items and {n_all:,} of all:\n")
    say(markdown_table(header, lines))
    say(f"\nndcg@{K_NDCG} of warm test events:\n")
    say(markdown_table(["system", "warm items", "warm and cold items"], warm))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that a recipe wrote")
    parser.add_argument("--split", type=Path, required=True, help="table of user_id, item_id and split")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset and the runs")
    parser.add_argument("--encoder", help="model that reads texts: name or folder")
    arguments = vars(parser.parse_args())
    with ends_in_one_line():
        main(**arguments)
