"""Reports of experiments: run folders, test metrics, paired differences and Markdown tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.evaluation import bootstrap_interval
from experiments.commands import Cost, run_command
from experiments.json_files import read_object
from experiments.libraries import required_library

tabulate = required_library("tabulate", "experiments").tabulate

METRICS_FILE, USERS_FILE = "test.json", "test.parquet"  # of a run folder: means, and values per user


def run_folder(parent: Path, row: str) -> Path:
    """Run folder of a table row: its name in lower case, dashes for spaces, no commas and quotes."""
    return parent / row.lower().replace(" ", "-").replace(",", "").replace("'", "")


def evaluate(run: Path, *flags: str, results: Path | None = None, processes: int = 1) -> Cost:
    """Evaluate a run on the test events.

    Args:
        run: folder.
        flags: further ones of evaluate.
        results: folder of the results; by default that of the run.
        processes: that share the users.
    """
    folder = results or run
    files = ["--json", folder / METRICS_FILE, "--per-user", folder / USERS_FILE]
    return run_command("evaluate", "--run", run, *files, *flags, processes=processes)


def is_evaluated(run: Path) -> bool:
    """Whether the run folder holds test metrics: means, and values per user."""
    return (run / METRICS_FILE).is_file() and (run / USERS_FILE).is_file()


def read_metrics(run: Path) -> dict[str, float]:
    """Mean of each metric over the test users of an evaluated run."""
    metrics: dict[str, float] = read_object(run / METRICS_FILE)["metrics"]
    return metrics


def paired_differences(run: Path, other: Path, metric: str) -> pl.DataFrame:
    """A metric of a run minus that of another run: columns `user_id` and `difference`, a row per user."""
    left, right = (
        pl.read_parquet(folder / USERS_FILE, columns=["user_id", metric]) for folder in (run, other)
    )
    joined = left.join(right, on="user_id", suffix="_other")
    return joined.select("user_id", difference=pl.col(metric) - pl.col(f"{metric}_other"))


def mean_differences(
    output: Path, reference: str, name: str, seeds: Sequence[int], metric: str
) -> np.ndarray:
    """A metric of the reference minus that of a row, a value per user: the mean over the user's seeds."""
    by_seed = []
    for seed in seeds:
        left, right = (run_folder(output / f"seed{seed}", row) for row in (reference, name))
        by_seed.append(paired_differences(left, right, metric))
    means = pl.concat(by_seed).group_by("user_id", maintain_order=True).mean()
    return means["difference"].to_numpy()


def difference_cell(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval of differences (n_users,)."""
    low, high = bootstrap_interval(values)
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


@dataclass(frozen=True)
class SystemRow:
    """A row of `comparison_table`.

    Attributes:
        name: of the system.
        metrics: by name; the table shows some of them.
        differences: reference minus this system, (n_users,); None leaves the cell empty.
        further: cells of the further columns.
    """

    name: str
    metrics: Mapping[str, float]
    differences: np.ndarray | None
    further: Sequence[str]


def comparison_table(
    rows: Sequence[SystemRow], metrics: Sequence[str], ranked_by: str, reference: str, further: Sequence[str]
) -> str:
    """Systems by descending `ranked_by`, each with its paired difference from the reference.

    Args:
        rows: the systems, in any order.
        metrics: columns of the table.
        ranked_by: metric of the order and of the differences.
        reference: name of the reference system.
        further: headers of the further columns.
    """
    lines = []
    for row in sorted(rows, key=lambda row: -row.metrics[ranked_by]):
        difference = "" if row.differences is None else difference_cell(row.differences)
        values = [f"{row.metrics[metric]:.4f}" for metric in metrics]
        lines.append([row.name, *values, difference, *row.further])
    return markdown_table(["system", *metrics, f"{ranked_by} of {reference} minus this", *further], lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    alignment = ["left", *["right"] * (len(header) - 1)]
    return str(tabulate(rows, header, tablefmt="pipe", colalign=alignment, disable_numparse=True))
