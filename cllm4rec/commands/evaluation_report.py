"""What evaluate prints and writes: metrics with their intervals, slices, differences from another run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any, Literal

import numpy as np

from cllm4rec.data.audit import audited_task
from cllm4rec.data.dataset import PARTS, Dataset
from cllm4rec.evaluation import Measurement, Slice, differences
from cllm4rec.evaluation.measurement import STANDARD_ERROR
from cllm4rec.messages import counted

WIDTH = 100  # columns of a printed line
INTERVALS = "± is half the width of the 95 % bootstrap interval over {unit}s."
INTERVALS_OF_DIFFERENCES = "[low, high] is the 95 % bootstrap interval of the mean difference over {unit}s."


def input_parts(dataset: Dataset, part: Literal["validation", "test"]) -> str:
    """The parts of the events that are read when a held-out part is measured, in words."""
    present = np.unique(dataset.task(part).input.part)
    return " and ".join("training" if PARTS[code] == "train" else PARTS[code] for code in present)


@dataclass(frozen=True)
class MeasuredRun:
    """A run, how it was measured, and the result.

    Attributes:
        run: its folder.
        system: name of the system.
        stage: the stage whose weights were measured.
        settings: of the system, those that are not its defaults.
        diversity: of its lists.
        by: how it scored or chose.
        part: the held-out part of the split.
        protocol: the evaluation protocol.
        input_parts: the parts of the split that the model reads.
        unit: what each value belongs to: user or event.
        n_items: size of the catalogue.
        result: the metrics.
    """

    run: str
    system: str
    stage: str
    settings: dict[str, Any]
    diversity: float
    by: str
    part: str
    protocol: str
    input_parts: str
    unit: str
    n_items: int
    result: Measurement


def report_lines(measured: MeasuredRun) -> Iterator[str]:
    """The run and the protocol, a table of the metrics, and the speed."""
    result, unit = measured.result, measured.unit
    n, n_further = len(result.users), result.n_without_history
    yield (
        f"{measured.system} after {measured.stage}, on {measured.part}: {counted(n, unit)}, "
        f"{counted(measured.n_items, 'item')}; input: {measured.input_parts} events"
    )
    if measured.settings:
        values = ", ".join(f"{name} {value}" for name, value in measured.settings.items())
        yield from wrap(f"settings other than the defaults: {values}", WIDTH)
    yield from wrap(measured.protocol, WIDTH)
    if measured.diversity:
        yield f"lists of diversity {measured.diversity:g}: by maximal marginal relevance over item vectors"
    if n_further:
        verb = "has" if n_further == 1 else "have"
        yield f"{counted(n_further, f'further {unit}')} {verb} no history: left out"
    yield from _metric_lines(
        {
            name: _with_half_width(value, result.intervals.get(name))
            for name, value in result.metrics.items()
            if name != STANDARD_ERROR
        }
    )
    if result.intervals:
        yield INTERVALS.format(unit=unit)
    yield f"{n / result.seconds:,.0f} {unit}s/s, {result.seconds:.1f} s"


def audit_lines(dataset: Dataset, part: Any) -> list[str]:
    """Whether the input was free of held-out events, and then the details."""
    task, hashes = audited_task(None, dataset, part), dataset.hashes
    n_held_out = counted(len(task.held_out.interactions), f"{part} event")
    sets = {"input": task.input, "held out": task.held_out, "masked": task.masked}
    return [
        f"audit: none of {n_held_out} was input; the run was trained on this dataset and split",
        *(f"audit: {name}: {counted(len(events.interactions), 'event')}" for name, events in sets.items()),
        f"audit: data_sha256 {hashes.data_sha256}, split_sha256 {hashes.split_sha256}",
    ]


def comparison_lines(measured: MeasuredRun, other: MeasuredRun) -> Iterator[str]:
    """A table of paired differences: `measured` minus `other`."""
    yield ""
    how = " without diversity" if measured.diversity else ""
    how += f" by {other.by}" if other.by != measured.by else ""
    yield f"minus {other.system} after {other.stage} of {other.run}{how}, paired by {measured.unit}:"
    found = differences(measured.result, other.result)
    yield from _metric_lines({name: _with_bounds(each.mean, each.interval) for name, each in found.items()})
    if any(each.interval for each in found.values()):
        yield INTERVALS_OF_DIFFERENCES.format(unit=measured.unit)


def described_run(measured: MeasuredRun) -> dict[str, Any]:
    """The run and its metrics as JSON."""
    result, unit = measured.result, measured.unit
    return {
        "system": measured.system,
        "stage": measured.stage,
        "settings": measured.settings,
        "diversity": measured.diversity,
        "split": measured.part,
        "protocol": measured.protocol,
        "input": measured.input_parts,
        f"n_{unit}s": len(result.users),
        "n_items": measured.n_items,
        "metrics": result.metrics,
        "intervals": result.intervals,
        "slices": [asdict(each) for each in result.slices],
        "seconds": result.seconds,
        f"{unit}s_per_second": len(result.users) / result.seconds,
    }


def described_comparison(measured: MeasuredRun, other: MeasuredRun) -> dict[str, Any]:
    """The other run, its metrics, and the paired differences as JSON."""
    found = differences(measured.result, other.result)
    return {
        "run": other.run,
        "system": other.system,
        "stage": other.stage,
        "protocol": other.protocol,
        "metrics": other.result.metrics,
        "differences": {name: asdict(each) for name, each in found.items()},
    }


def slice_lines(slices: Sequence[Slice]) -> Iterator[str]:
    """A table for each kind of slices, a row a metric, a column a slice."""
    for by in dict.fromkeys(each.by for each in slices):
        group = [each for each in slices if each.by == by]
        bounds = [
            f"{each.lowest:,}" + (f" to {each.highest:,}" if each.highest > each.lowest else "")
            for each in group
        ]
        users = ["users", *(f"{each.n_users:,}" for each in group)]
        values = [[name, *(_number(each.metrics[name]) for each in group)] for name in group[0].metrics]
        yield from ("", f"by {by}:", *_table(["", *bounds], [users, *values]))


def _with_half_width(value: float, interval: tuple[float, float] | None) -> str:
    """A value and half the width of its interval: `.1234 ±.0056`."""
    text = f"{_number(value):>6}"
    return text if interval is None else f"{text} ±{_number((interval[1] - interval[0]) / 2)}"


def _with_bounds(difference: float, interval: tuple[float, float] | None) -> str:
    """A difference and its interval: `+.1234 [+.0056, +.2345]`."""
    text = f"{_number(difference, '+'):>6}"
    return text if interval is None else f"{text} [{', '.join(_number(bound, '+') for bound in interval)}]"


def _number(value: float, sign: str = "") -> str:
    """Four decimals, without a zero before the point."""
    text = f"{value:{sign}.4f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and "0." in text[:3] else text


def _metric_lines(cells: Mapping[str, str]) -> list[str]:
    """A table from cells by metric: of list lengths if all have one, else a line a metric."""
    if all("@" in name for name in cells):
        return _by_length(cells)
    width = max(map(len, cells))
    return [f"  {name:<{width}}  {cell}" for name, cell in cells.items()]


def _by_length(cells: Mapping[str, str]) -> list[str]:
    """A table from cells by metric: `recall@20` is in row recall and column @20."""
    families = list(dict.fromkeys(name.partition("@")[0] for name in cells))
    lengths = sorted({int(name.partition("@")[2]) for name in cells})
    most = (WIDTH - 2 - max(map(len, families))) // (2 + max(map(len, cells.values())))
    n_columns = -(-len(lengths) // -(-len(lengths) // most))  # of tables of about the same width
    lines: list[str] = []
    for start in range(0, len(lengths), n_columns):
        shown = lengths[start : start + n_columns]
        header = ["", *(f"{f'@{k}':>6}" for k in shown)]
        rows = [[family, *(cells.get(f"{family}@{k}", "") for k in shown)] for family in families]
        lines += _table(header, [row for row in rows if any(row[1:])])
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in (header, *rows))
    return [f"  {line}".rstrip() for line in lines]
