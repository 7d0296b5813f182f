"""The bag model with the linear path of CLLM4Rec: is CLLM4Rec's lead that of its network?

    OMP_NUM_THREADS=1 python -m experiments.bag_with_path --bag runs/bag --cllm4rec runs/cllm4rec

Data: runs of the bag model and of CLLM4Rec on one dataset. The scores of the path are added to those of the
bag model, with the weight that is best on validation events, as CLLM4Rec chooses it.

Prints NDCG@100 on validation events for each weight, that of test events for the best one, and CLLM4Rec minus
it, paired over users, with its 95 % bootstrap interval.
"""

import argparse
from pathlib import Path
from typing import Literal, cast

import numpy as np
from torch import Tensor

from cllm4rec import CLLM4Rec, load
from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import Measurement, differences, measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec.linear_path import WEIGHTS, LinearPath
from cllm4rec.models.inner_product import LinearScores
from cllm4rec.models.pooling.bag import Bag
from cllm4rec.training.records import VALIDATION_METRIC
from experiments.commands import argument_parser, ends_in_one_line
from experiments.report import markdown_table


class BagWithPath(Bag):
    """A fitted bag model, and a linear path that is added to it."""

    def __init__(self, model: Bag, path: LinearPath) -> None:
        vars(self).update(vars(model))
        self.path = path

    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        read = super()._vectors
        return self._kept_vectors(users, lambda: read(users, trained_users, seen))

    def _linear(self, users: np.ndarray, seen: Dataset) -> LinearScores:
        return self.path.scores(users, seen.interactions)


def path_of(model: Recommender) -> LinearPath:
    """The linear path of a CLLM4Rec.

    Raises:
        SystemExit: it has none, or is another system.
    """
    path = model.net.linear if isinstance(model, CLLM4Rec) else None
    if path is None:
        raise SystemExit(f"error: --cllm4rec is a run of {model.name} without a linear path: name another")
    return cast(LinearPath, path)


def main(bag: Path, cllm4rec: Path) -> None:
    """Choose the weight, and compare."""
    model, reference = load(bag), load(cllm4rec)
    if not isinstance(model, Bag):
        raise SystemExit(f"error: --bag is a run of {model.name}: name one of the bag model")
    dataset = reference._source_dataset()
    if dataset.hashes != model._source_dataset().hashes:
        raise SystemExit("error: the two runs are of different datasets: train them on one")
    path = path_of(reference)
    own, own_decay = float(path.weight), float(path.decay)
    combined, quality = BagWithPath(model, path), {}

    def measured(system: Recommender, part: Literal["validation", "test"]) -> Measurement:
        return measure(system, dataset, part, metrics=[VALIDATION_METRIC])

    with combined.keeping_vectors():
        for weight in WEIGHTS:
            path.weight.fill_(weight)
            quality[weight] = measured(combined, "validation").metrics[VALIDATION_METRIC]
    best = max(quality, key=quality.__getitem__)
    rows = [[f"{weight:g}", f"{value:.4f}"] for weight, value in quality.items()]
    say(markdown_table(["weight", f"validation {VALIDATION_METRIC}"], rows))
    path.weight.fill_(best)
    of_bag = measured(combined, "test")
    path.weight.fill_(own)
    path.decay.fill_(own_decay)
    of_reference = measured(reference, "test")
    difference = differences(of_reference, of_bag)[VALIDATION_METRIC]
    low, high = difference.interval or (float("nan"), float("nan"))
    values = [each.metrics[VALIDATION_METRIC] for each in (of_bag, of_reference)]
    say(
        f"\ntest {VALIDATION_METRIC}: bag with path, weight {best:g}: {values[0]:.4f}; "
        f"CLLM4Rec {values[1]:.4f}; "
        f"CLLM4Rec minus bag with path {difference.mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--bag", type=Path, required=True, help="run of the bag model")
    parser.add_argument("--cllm4rec", type=Path, required=True, help="run of CLLM4Rec on the same dataset")
    return parser.parse_args()


if __name__ == "__main__":
    with ends_in_one_line():
        main(**vars(_arguments()))
