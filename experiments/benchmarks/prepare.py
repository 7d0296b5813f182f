"""`prepare` on generated events: read, 5-core, split by time, write."""

import gzip
import math
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from experiments.benchmarks.common import Row, Settings, report, settings
from experiments.commands import command


def events(n: int, seed: int = 0) -> pl.DataFrame:
    """Events of n / 20 users with items of a skewed popularity; ids are words, times are seconds."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, n // 20, n)
    items = (generator.random(n) ** 3 * (n // 100)).astype(np.int64)
    frame = pl.DataFrame({"user": users, "item": items, "rating": generator.integers(1, 6, n)})
    ids = [pl.format("{}-{}", pl.lit(kind), pl.col(kind)).alias(f"{kind}_id") for kind in ("user", "item")]
    return frame.select(*ids, "rating", timestamp=pl.Series(generator.integers(1_500_000_000, 1_600_000_000, n)))


def write(frame: pl.DataFrame, path: Path) -> None:
    """As its name says."""
    if path.suffix == ".parquet":
        frame.write_parquet(path)
        return
    with gzip.open(path, "wb", compresslevel=1) as file:
        frame.write_csv(file, separator="\t")  # type: ignore[call-overload]  # a file that is open is one, too


def main(given: Settings) -> list[Row]:
    most, rows = (1_000_000 if given.short else 10_000_000), []
    with tempfile.TemporaryDirectory() as name:
        for kind in ("tsv.gz", "parquet"):
            spent = {}
            for n in (most // 10, most):
                path = Path(name) / f"{n}.{kind}"
                write(events(n), path)
                spent[n] = command("prepare", "--interactions", path, "--k-core", 5, "--split", "leave-last-out",
                                   "--output", Path(name) / "data")  # fmt: skip
                path.unlink()
            large, small = spent[most], spent[most // 10]
            exponent = math.log10(large.seconds / small.seconds)
            what = f"prepare, {most:,} events, {kind}"
            rows += [
                Row(f"{what}: seconds", f"{large.seconds:.1f} s", f"a tenth {small.seconds:.1f} s", large.seconds, 60, True),
                Row(
                    f"{what}: peak MiB", f"{large.peak_mib:,.0f}", f"a tenth {small.peak_mib:,.0f}", large.peak_mib, 4096, True
                ),
                Row(f"{what}: exponent of time", "", "", exponent, 1.1, True),
            ]
    return report("prepare", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
