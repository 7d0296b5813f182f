"""The command `prepare` on ten million events: read, 5-core, leave-last-out, write.

    python -m experiments.benchmarks.prepare --output bench

Data: generated events, as TSV.gz and as Parquet.

Prints seconds, peak memory and the exponent of time. Comparator: a tenth of the events.
"""

import gzip
import math
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import Cost, ends_in_one_line, run_command


def generate_events(n: int, seed: int = 0) -> pl.DataFrame:
    """Events of n / 20 users with items of a skewed popularity; ids are texts, times are in seconds."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, n // 20, n)
    items = (generator.random(n) ** 3 * (n // 100)).astype(np.int64)
    table = pl.DataFrame({"user": users, "item": items, "rating": generator.integers(1, 6, n)})
    ids = [pl.format("{}-{}", pl.lit(kind), pl.col(kind)).alias(f"{kind}_id") for kind in ("user", "item")]
    times = pl.Series(generator.integers(1_500_000_000, 1_600_000_000, n))
    return table.select(*ids, "rating", timestamp=times)


def write_events(n: int, path: Path) -> None:
    """Write n events to a .parquet or .tsv.gz file."""
    events = generate_events(n)
    if path.suffix == ".parquet":
        events.write_parquet(path)
        return
    with gzip.open(path, "wb", compresslevel=1) as file:
        events.write_csv(file, separator="\t")  # type: ignore[call-overload]  # open files are accepted too


def rows_of(kind: str, large: Cost, small: Cost, n: int) -> list[Row]:
    """Time, memory and growth of the command on n events, against a tenth of them."""
    prefix = f"prepare, {n:,} events, {kind}"
    exponent = math.log10(large.seconds / small.seconds)
    cpu_exponent = math.log10(large.cpu_seconds / small.cpu_seconds)
    times = f"{large.seconds:.1f} s ({large.cpu_seconds:.1f} s of CPU)"
    tenth = f"a tenth {small.seconds:.1f} s ({small.cpu_seconds:.1f} s)"
    peaks = f"{large.peak_mib:,.0f}", f"a tenth {small.peak_mib:,.0f}"
    return [
        Row(f"{prefix}: seconds", times, tenth, large.seconds, 60, True),
        Row(f"{prefix}: peak MiB", *peaks, large.peak_mib, 4096, True),
        Row(f"{prefix}: exponent of time", f"of CPU time {cpu_exponent:.2f}", "", exponent, 1.1, True),
    ]


def main(settings: Settings) -> list[Row]:
    n_events, rows = 1_000_000 if settings.short else 10_000_000, []
    spawn = multiprocessing.get_context("spawn")
    # Events are made in another process: the peak of a command includes the memory of its parent.
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, mp_context=spawn) as maker:
        for kind in ("tsv.gz", "parquet"):
            costs = []
            for n in (n_events // 10, n_events):
                path = Path(name) / f"{n}.{kind}"
                maker.submit(write_events, n, path).result()
                rules = ("--k-core", 5, "--split", "leave-last-out")
                output = Path(name) / "data"
                costs.append(run_command("prepare", "--interactions", path, *rules, "--output", output))
                path.unlink()
            small, large = costs
            rows += rows_of(kind, large, small, n_events)
    return report("prepare", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
