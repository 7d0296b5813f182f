"""The README's table of results, and figures of quality by training time and by slice (need matplotlib).

    python -m experiments.ranking_report --figures docs/figures

Data: experiments/results, which experiments.full_ranking wrote (--results names another folder).

Prints the table in Markdown: NDCG@100 on test events, and the 95 % interval of CLLM4Rec minus the best other
row, paired over users. Means are over those seeds of the splits that all rows of a set have. Then the slices
by day, for each protocol: held-out events on a day of a training event of the user, and others. Then what
CLLM4Rec loses (above 0) or gains in each of its other forms, over the most seeds of a set that both have.

quality_and_time.svg has a panel for each set, quality_by_slice.svg one for each set and kind of slices.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from cllm4rec.commands.entry import say
from cllm4rec.evaluation.slices import BY_ACTIVITY, BY_DAY, BY_POPULARITY
from experiments.commands import argument_parser, ends_in_one_line
from experiments.libraries import required_library
from experiments.protocols import PROTOCOLS
from experiments.ranking_results import (
    DIFFERENCES,
    RUNS,
    SLICES,
    Line,
    listed,
    read_lines,
    shared_seeds,
)
from experiments.report import markdown_table

RESULTS = Path(__file__).parent / "results"
TITLES = {  # of sets; others have their name
    "ml-100k": "MovieLens 100K",
    "ml-1m": "MovieLens 1M",
    "musical": "Musical Instruments",
    "beauty": "Beauty",
}
ENCODER_FORM = ", MiniLM"  # the end of the names of rows with the encoder of the README's table
A = PROTOCOLS["A"]  # of the README's table and of the figures
SHOWN, REFERENCE, METRIC = A.shown, A.reference, A.compared[0]
COLORS = dict(zip(SHOWN, ("#b45309", "#1d4ed8", "#15803d", "#7e22ce", "#59636e"), strict=True))
KINDS = {  # of slices -> their name in the figure
    BY_ACTIVITY: BY_ACTIVITY,
    BY_POPULARITY: BY_POPULARITY,
    BY_DAY: "days to the nearest input event",
}


def comparable(folder: Path, protocol: str = "A") -> tuple[list[Line], list[Line]]:
    """Runs and slices of a protocol, of each set those of the seeds that all its main rows have.

    A row that lacks one of these seeds is left out.
    """
    runs, slices = read_lines(folder / RUNS), read_lines(folder / SLICES)
    seeds = {set_name: shared_seeds(runs, set_name, protocol) for set_name in sets_of(runs)}
    measured = defaultdict(set)
    for line in runs:
        if line["protocol"] == protocol:
            measured[line["set"], line["row"]].add(int(line["seed"]))

    def kept(lines: Sequence[Line]) -> list[Line]:
        of_protocol = [line for line in lines if line["protocol"] == protocol]
        return [
            line
            for line in of_protocol
            if int(line["seed"]) in seeds[line["set"]]
            and measured[line["set"], line["row"]] >= seeds[line["set"]]
        ]

    return kept(runs), kept(slices)


def sets_of(lines: Sequence[Line]) -> dict[str, str]:
    """Name -> title of the sets in lines of results, those of TITLES first."""
    names = dict.fromkeys(line["set"] for line in lines)
    ordered = [name for name in TITLES if name in names] + [name for name in names if name not in TITLES]
    return {name: TITLES.get(name, name) for name in ordered}


def best_form(name: str, means: dict[str, float]) -> str:
    """A row, or its form with an encoder where that was measured and is better; CLLM4Rec stays as it is."""
    encoder = name + ENCODER_FORM
    has_better = name != REFERENCE and means.get(encoder, 0.0) > means.get(name, 0.0)
    return encoder if has_better else name


def row_means(runs: Sequence[Line], set_name: str, column: str) -> dict[str, float]:
    """Row -> mean of a column over the seeds of a set; rows with a blank cell are left out."""
    values = defaultdict(list)
    for line in runs:
        if line["set"] == set_name:
            values[line["row"]].append(line.get(column, ""))
    return {row: mean(map(float, cells)) for row, cells in values.items() if all(cells)}


def table(folder: Path) -> str:
    """The README's table.

    Raises:
        SystemExit: there is no row, or one has no difference over the seeds of the table, or a file is
            another table.
    """
    runs = comparable(folder)[0]
    sets = sets_of(runs)
    if not sets:
        raise SystemExit(f"error: {folder / RUNS} has no main row of protocol A: {', '.join(SHOWN)}")
    seeds_of = {set_name: listed(shared_seeds(runs, set_name, "A")) for set_name in sets}
    interval_of = {
        (line["set"], line["row"]): f"[{short(line['low'], '+')}, {short(line['high'], '+')}]"
        for line in read_lines(folder / DIFFERENCES)
        if is_compared(line) and line["seeds"] == seeds_of.get(line["set"])
    }
    cells, best = {row: [row] for row in SHOWN}, [f"{REFERENCE} minus the best other"]
    for set_name in sets:
        means = row_means(runs, set_name, METRIC)
        forms = {row: best_form(row, means) for row in SHOWN}
        for row, measured in forms.items():
            cells[row].append(short(means[measured]) if measured in means else "")
        others = {name: means[name] for row, name in forms.items() if row != REFERENCE and name in means}
        if not others or REFERENCE not in means:
            best.append("")
            continue
        name = max(others, key=others.__getitem__)
        if (set_name, name) not in interval_of:
            raise SystemExit(
                f"error: {folder / DIFFERENCES} has no {name} on {set_name} over seeds "
                f"{seeds_of[set_name]}: run experiments.full_ranking --results with these seeds again"
            )
        best.append(interval_of[set_name, name])
    return markdown_table(["", *sets.values()], [*cells.values(), best])


def is_compared(line: Line) -> bool:
    """Whether a difference is one of the README's table: from CLLM4Rec, of its metric and protocol."""
    return (line["protocol"], line["reference"], line["metric"]) == ("A", REFERENCE, METRIC)


def day_table(folder: Path, protocol: str = "A") -> str:
    """Held-out events on a day of a training event of their user (same), and others; "" without any row.

    Args:
        folder: of the CSV files.
        protocol: key of PROTOCOLS; the first of its compared metrics is shown.
    """
    about = PROTOCOLS[protocol]
    metric = about.compared[0]
    runs, slices = comparable(folder, protocol)
    lines = [line for line in slices if line["by"] == BY_DAY]
    titles = sets_of(lines)
    cells = {row: [row] for row in about.shown}
    for set_name in titles:
        for is_same in (True, False):
            group = [line for line in lines if (line["highest"] == "0") == is_same]
            means = row_means(group, set_name, metric)
            for row in about.shown:
                measured = best_form(row, row_means(runs, set_name, metric))
                cells[row].append(short(means[measured]) if measured in means else "")
    header = [f"{title}, {day} day" for title in titles.values() for day in ("same", "other")]
    shown = [row for row in cells.values() if any(row[1:])]
    return markdown_table(["", *header], shown) if shown else ""


def form_table(folder: Path) -> str:
    """CLLM4Rec minus its other forms under protocol A, with 95 % intervals; "" without any.

    A cell is over the most seeds of the splits that both have; their number follows if it is above 1.
    """
    lines = [
        line
        for line in read_lines(folder / DIFFERENCES)
        if is_compared(line) and line["row"].startswith(f"{REFERENCE}, ")
    ]
    titles, cells = sets_of(lines), {line["row"]: dict[str, str]() for line in lines}
    for line in sorted(lines, key=lambda line: len(line["seeds"].split())):
        n_seeds, bounds = len(line["seeds"].split()), f"{short(line['low'], '+')}, {short(line['high'], '+')}"
        splits = f"; {n_seeds} splits" if n_seeds > 1 else ""
        cells[line["row"]][line["set"]] = f"{short(line['difference'], '+')} [{bounds}]{splits}"
    rows = [
        [row.removeprefix(f"{REFERENCE}, "), *(of_row.get(name, "") for name in titles)]
        for row, of_row in cells.items()
    ]
    return markdown_table(["", *titles.values()], rows) if rows else ""


def short(value: float | str, sign: str = "") -> str:
    """A number below 1 with four digits and no leading zero: .1234, +.1234."""
    return f"{float(value):{sign}.4f}".replace("0.", ".", 1)


def pyplot_for_svg() -> Any:
    """The module matplotlib.pyplot, for pictures that do not differ from run to run."""
    matplotlib = required_library("matplotlib", "plots")
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "cllm4rec", "svg.fonttype": "none"})
    from matplotlib import pyplot

    return pyplot


def draw_times(folder: Path, output: Path) -> None:
    """NDCG@100 against the CPU time of training, a panel for each set and a point for each row."""
    pyplot = pyplot_for_svg()
    from matplotlib import ticker

    runs = comparable(folder)[0]
    sets = sets_of(runs)
    size = 4 * len(sets) + 1.5, 3.6
    figure, grid = pyplot.subplots(1, len(sets), figsize=size, layout="constrained", squeeze=False)
    panels = grid[0]
    for panel, (set_name, title) in zip(panels, sets.items(), strict=True):
        quality = row_means(runs, set_name, METRIC)
        low, high = (row_means(runs, set_name, f"{METRIC} {end}") for end in ("low", "high"))
        seconds = row_means(runs, set_name, "training_cpu_seconds")
        for row, color in COLORS.items():
            for name, marker in ((row, "o"), (row + ENCODER_FORM, "s")):
                if name in seconds:  # not known of resumed training
                    ends = [[quality[name] - low[name]], [high[name] - quality[name]]]
                    place = seconds[name], quality[name]
                    panel.errorbar(*place, yerr=ends, fmt=marker, capsize=2, color=color, label=name)
        panel.set(title=title, xlabel="training (CPU seconds)", xscale="log")
        panel.margins(x=0.15)
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        panel.xaxis.set_major_formatter(ticker.ScalarFormatter())
        panel.xaxis.set_minor_locator(ticker.NullLocator())
    panels[0].set_ylabel("NDCG@100, test events")
    save(figure, panels, output)


def draw_slices(folder: Path, output: Path) -> None:
    """NDCG@100 by slice, a panel for each set and kind of slices, a line for each row.

    Slices are named by their bounds on the first seed.
    """
    pyplot, (runs, lines) = pyplot_for_svg(), comparable(folder)
    sets = sets_of(runs)
    size = 4 * len(KINDS) + 1.5, 2.6 * len(sets)
    figure, panels = pyplot.subplots(len(sets), len(KINDS), figsize=size, layout="constrained", squeeze=False)
    for of_set, (set_name, title) in zip(panels, sets.items(), strict=True):
        for panel, (by, label) in zip(of_set, KINDS.items(), strict=True):
            group = [line for line in lines if (line["set"], line["by"]) == (set_name, by)]
            bounds = {line["slice"]: interval(line["lowest"], line["highest"]) for line in reversed(group)}
            numbers = sorted(bounds, key=int)
            for row, color in COLORS.items():
                measured = best_form(row, row_means(runs, set_name, METRIC))
                quality = [
                    row_means([line for line in group if line["slice"] == number], set_name, METRIC)
                    for number in numbers
                ]
                if quality and all(measured in means for means in quality):
                    values = [means[measured] for means in quality]
                    panel.plot(numbers, values, "o-", color=color, label=measured)
            panel.set_xticks(range(len(numbers)), [bounds[number] for number in numbers])
            panel.set_xlabel(label, fontsize=8)
            panel.set_ylim(bottom=0)
        of_set[0].set_ylabel(f"{title}\nNDCG@100, test events", fontsize=8)
    save(figure, [panel for of_set in panels for panel in of_set], output)


def interval(lowest: str, highest: str) -> str:
    """The bounds of a slice: `4` or `5-7`."""
    return lowest if lowest == highest else f"{lowest}-{highest}"


def save(figure: Any, panels: Iterable[Any], output: Path) -> None:
    """Write a figure with one legend for all its panels."""
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    figure.savefig(output, metadata={"Date": None})
    pyplot_for_svg().close(figure)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--figures", type=Path, help="folder of pictures to write")
    arguments = parser.parse_args()
    with ends_in_one_line():
        say(table(arguments.results))
        for name, each in PROTOCOLS.items():
            if by_day := day_table(arguments.results, name):
                say(f"\n{each.title}, {each.compared[0]}:\n\n{by_day}")
        if forms := form_table(arguments.results):
            say(f"\n{REFERENCE} minus its other forms, {A.title}, {METRIC}:\n\n{forms}")
        if arguments.figures is not None:
            arguments.figures.mkdir(parents=True, exist_ok=True)
            draw_times(arguments.results, arguments.figures / "quality_and_time.svg")
            draw_slices(arguments.results, arguments.figures / "quality_by_slice.svg")
