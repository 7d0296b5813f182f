"""`prepare` on generated events: read, 5-core, leave the last events out, write."""

import gzip
import math
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from experiments.benchmarks.common import Row, Settings, report, settings
from experiments.commands import Spent, command


def events(n: int, seed: int = 0) -> pl.DataFrame:
    """Events of n / 20 users with items of a skewed popularity; ids are words, times are seconds."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, n // 20, n)
    items = (generator.random(n) ** 3 * (n // 100)).astype(np.int64)
    frame = pl.DataFrame({"user": users, "item": items, "rating": generator.integers(1, 6, n)})
    ids = [pl.format("{}-{}", pl.lit(kind), pl.col(kind)).alias(f"{kind}_id") for kind in ("user", "item")]
    return frame.select(*ids, "rating", timestamp=pl.Series(generator.integers(1_500_000_000, 1_600_000_000, n)))


def write_events(n: int, path: Path) -> None:
    """Write `events(n)` as the kind of file that its name says."""
    frame = events(n)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
        return
    with gzip.open(path, "wb", compresslevel=1) as file:
        frame.write_csv(file, separator="\t")  # type: ignore[call-overload]  # a file that is open is one, too


def main(given: Settings) -> list[Row]:
    most, rows = (1_000_000 if given.short else 10_000_000), []
    spawn = multiprocessing.get_context("spawn")  # events are made elsewhere: a command's peak counts that of who starts it
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, mp_context=spawn) as maker:
        for kind in ("tsv.gz", "parquet"):
            spent = {}
            for n in (most // 10, most):
                path = Path(name) / f"{n}.{kind}"
                maker.submit(write_events, n, path).result()
                spent[n] = command("prepare", "--interactions", path, "--k-core", 5, "--split", "leave-last-out",
                                   "--output", Path(name) / "data")  # fmt: skip
                path.unlink()
            rows += compared(spent[most], spent[most // 10], f"prepare, {most:,} events, {kind}")
    return report("prepare", rows, given)


def compared(large: Spent, small: Spent, what: str) -> list[Row]:
    """Time, memory and growth of a command on a table and on one of a tenth of its size."""
    exponent = math.log10(large.seconds / small.seconds)
    times = f"{large.seconds:.1f} s ({large.cpu_seconds:.1f} s of CPU)"
    tenth = f"a tenth {small.seconds:.1f} s ({small.cpu_seconds:.1f} s)"
    peaks = f"{large.peak_mib:,.0f}", f"a tenth {small.peak_mib:,.0f}"
    growth = f"of CPU time {math.log10(large.cpu_seconds / small.cpu_seconds):.2f}"
    return [
        Row(f"{what}: seconds", times, tenth, large.seconds, 60, True),
        Row(f"{what}: peak MiB", *peaks, large.peak_mib, 4096, True),
        Row(f"{what}: exponent of time", growth, "", exponent, 1.1, True),
    ]


if __name__ == "__main__":
    main(settings(__doc__))
