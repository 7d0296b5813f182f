"""Learning curves of a run as a picture (needs matplotlib).

    python -m experiments.curves --run RUN --output FILE.png

Data: the epoch records of a run folder. Prints nothing; the picture is written to FILE.
"""

from pathlib import Path

from cllm4rec.training.run_folder import RunFolder
from experiments.commands import argument_parser, ends_in_one_line
from experiments.libraries import required_library

required_library("matplotlib", "plots").use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without a screen


def draw(run: str | Path, output: str | Path) -> None:
    """Loss terms (left) and validation NDCG@100 (right) over the epochs of all stages."""
    records = list(enumerate(RunFolder.open(run).metrics()))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in dict.fromkeys(name for _, record in records for name in record.losses if " " not in name):
        points = [(epoch, record.losses[name]) for epoch, record in records if name in record.losses]
        left.plot(*zip(*points, strict=True), marker=".", label=name)
    left.set(
        xlabel="epoch over all stages", ylabel="negative log-likelihood of a target (nats)", title="loss"
    )
    left.legend()
    validated = [
        (epoch, record.stage, record.validation) for epoch, record in records if record.validation is not None
    ]
    for stage in dict.fromkeys(stage for _, stage, _ in validated):
        points = [(epoch, quality) for epoch, of_stage, quality in validated if of_stage == stage]
        right.plot(*zip(*points, strict=True), marker=".", label=stage)
    right.set(xlabel="epoch over all stages", ylabel="validation NDCG@100", title="quality")
    right.legend()
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--output", required=True, help="picture to write (.png)")
    arguments = parser.parse_args()
    with ends_in_one_line():
        draw(arguments.run, arguments.output)
