"""Measured changes of defaults: a row each in a CSV file that several calls may extend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cllm4rec.files.locks import check_parents, locked
from cllm4rec.files.writing import FILE_WAIT_SECONDS
from experiments.tuning.rows import METRIC, read_rows, write_rows

Row = Mapping[str, str]  # column -> text

MEASURED = (METRIC, "failure", "seconds", "cpu_seconds", "peak_mib", "code_sha256")
CONDITIONS = ("system", "data_sha256", "split_sha256", "seed", "threads", "precision", "versions")
MEASUREMENT = (*CONDITIONS, "settings")  # rows that agree in these are measured once
COLUMNS = (
    *("system", "dataset", "change", "seed", METRIC, "gain"),
    *MEASURED[1:-1],
    *("threads", "precision", "versions", "data_sha256", "split_sha256", "code_sha256"),
    *("defaults_sha256", "settings", "command"),
)
NO_TABLE = "is no table of tried changes: name another --output"


@dataclass(frozen=True)
class TriedRows:
    """The rows of a file, which is read anew at each access.

    Attributes:
        file: links resolved. It may be missing.
    """

    file: Path

    @property
    def rows(self) -> Sequence[Row]:
        """The rows, in the order in which they ended.

        Raises:
            SystemExit: the file holds something else.
            ValueError: no file can be written there.
        """
        check_parents(self.file)
        if not self.file.exists():
            return []
        try:
            rows = read_rows(self.file)
            is_table = all(tuple(row) == COLUMNS and None not in row.values() for row in rows)
            _ = [float(row[name]) for row in rows for name in (METRIC, "gain") if row[name]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"error: {self.file} {NO_TABLE}") from error
        if not rows or not is_table:
            raise SystemExit(f"error: {self.file} {NO_TABLE}")
        return rows

    def add(self, row: Row) -> None:
        """Append a row, unless another call has added it meanwhile; all gains are those of the rows now.

        Raises:
            ValueError: the file cannot be written.
        """
        with locked(self.file, FILE_WAIT_SECONDS):
            rows = self.rows
            if of_trial(rows, row) is None:
                write_rows(self.file, COLUMNS, _with_gains([*rows, row]))


def _first_alike(rows: Sequence[Row], row: Row, columns: Sequence[str]) -> Row | None:
    """The first row that agrees with a row in some columns; None if there is none."""
    return next((each for each in rows if all(each[name] == row[name] for name in columns)), None)


def measurement(rows: Sequence[Row], row: Row) -> Row | None:
    """The row of the same settings and conditions, whatever was the default then; None if there is none."""
    return _first_alike(rows, row, MEASUREMENT)


def of_trial(rows: Sequence[Row], row: Row) -> Row | None:
    """The row of the same settings, conditions and defaults; None if there is none."""
    return _first_alike(rows, row, (*MEASUREMENT, "defaults_sha256"))


def of_defaults(rows: Sequence[Row], row: Row) -> Row | None:
    """The row of the defaults that a row's change is one of; None if they were not measured."""
    return _first_alike([each for each in rows if not each["change"]], row, (*CONDITIONS, "defaults_sha256"))


def _with_gains(rows: Sequence[Row]) -> list[Row]:
    """The rows with their gain: the metric minus that of the defaults; empty where one of both is missing."""
    found: list[Row] = []
    for row in rows:
        base = of_defaults(rows, row) if row["change"] else None
        known = base is not None and row[METRIC] and base[METRIC]
        gain = f"{float(row[METRIC]) - float(base[METRIC]):+.6f}" if base is not None and known else ""
        found.append({**row, "gain": gain})
    return found
