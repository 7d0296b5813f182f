"""Learning curves of a run as a picture: python -m experiments.curves --run RUN --output FILE.png"""

import argparse
from pathlib import Path

import matplotlib

from cllm4rec.training.checkpoint import RunFolder

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without a screen


def draw(run: str | Path, output: str | Path) -> None:
    """Loss terms (left) and validation NDCG@100 (right) over the epochs of all stages."""
    records = RunFolder.open(run).metrics()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in dict.fromkeys(name for record in records for name in record["losses"] if " " not in name):
        points = [(i, record["losses"][name]) for i, record in enumerate(records) if name in record["losses"]]
        left.plot(*zip(*points, strict=True), marker=".", label=name)
    left.set(xlabel="epoch over all stages", ylabel="negative log-likelihood of a target (nats)", title="loss")
    left.legend()
    for stage in dict.fromkeys(record["stage"] for record in records):
        points = [(i, r["validation"]) for i, r in enumerate(records) if r["stage"] == stage and r["validation"] is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker=".", label=stage)
    right.set(xlabel="epoch over all stages", ylabel="validation NDCG@100", title="quality")
    right.legend()
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--output", required=True, help="picture to write (.png)")
    given = parser.parse_args()
    draw(given.run, given.output)
