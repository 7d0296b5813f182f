"""Full ranking on real data sets: CLLM4Rec, its ablations and the baselines.

    python -m experiments.full_ranking --data datasets/ml-100k datasets/musical --output runs

Settings are chosen on validation events; test events are reported once. --protocol:

  A              a random split of each user's events, one for each seed, which `experiments.recipes` made
  last           each user's last event is test, the one before validation
  last-shuffled  the same, events of one time in random order; one order for each seed
  time           the last 10 % of all events are test, the 10 % before validation

DATA is a folder that `experiments.recipes` wrote. A takes its dataset folders seed0, seed1, ...; the other
protocols prepare its tables.

Rows with ENCODER in their name read item vectors of a model, or have it as their backbone. --encoder names
one or more: MiniLM=FOLDER measures the row "CLLM4Rec, ENCODER" as "CLLM4Rec, MiniLM". Rows of RSLLM need the
row "SASRec, texts", those on BSARec the row "BSARec, texts". "RSLLM, ENCODER, no sequential score" measures
the run of "RSLLM, ENCODER, unified prompts", and needs that row. The same holds on BSARec, for "ten items"
and for "soft tokens".

--tuned names the OUTPUT of `experiments.tune`. A system whose settings were searched on this set has the
chosen ones then; the name of its row ends with "tuned".

Prints a table for each set, means over seeds: metrics, paired difference from CLLM4Rec or from --reference,
CPU time and peak memory. With --processes they are the time of all processes, and the memory of the largest.
OUTPUT/PROTOCOL/SET/table.md holds that of the last call, results.json next to it every measured row with the
hashes of its dataset. Measured rows are not run again. Those of other datasets, models or settings are
refused, those of other code are named below the table. A row that fails is left out until a later call. An
interrupted training goes on if code, dataset and settings are the same; its costs are then not known. Calls
with the same OUTPUT may run at the same time: a row that another one measures is waited for.

--results names a folder of CSV files. runs.csv gets a line for each run: all metrics with their 95 %
intervals over users, costs, versions, hashes and commands. slices.csv gets its slices by activity of users,
by popularity of held-out items, by few training events and by day. differences.csv gets the reference of the
protocol, and --reference, minus each row, paired over users: over the seeds that both have, and over those
that all main rows of a table have. Lines of other runs stay.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cllm4rec.commands.entry import say
from experiments.commands import CommandFailed, Seeds, argument_parser, ends_in_one_line
from experiments.protocols import PROTOCOLS, with_reference
from experiments.ranking_results import write_results
from experiments.ranking_rows import LIMITED, ROWS
from experiments.ranking_sets import RankedSet

QUICK = (*LIMITED, "bag", "ItemKNN", "popularity")


def main(
    data: list[Path],
    seeds: list[int] | None,
    rows: list[str] | None,
    output: Path,
    encoder: Sequence[tuple[str, str]] = (),
    tuned: Path | None = None,
    protocol: str = "A",
    results: Path | None = None,
    reference: str | None = None,
    processes: int = 1,
) -> list[str]:
    """Measure the rows of all sets; write their tables, and their lines in the CSV files.

    Args:
        data: folders that recipes wrote.
        seeds, rows: to measure; None: those of the protocol.
        output: folder of runs and tables.
        encoder: names in the table and models, of the rows that have an encoder.
        tuned: OUTPUT of `experiments.tune`.
        protocol: key of PROTOCOLS.
        results: folder of the CSV files; None: none.
        reference: row that is compared with all others, in the CSV files also; None: that of the protocol.
        processes: of each command that trains or evaluates.

    Returns:
        The runs that failed, as `set/row/seed`, and the sets whose datasets could not be prepared.

    Raises:
        SystemExit: a set, row or seed cannot be measured, or OUTPUT holds other rows under its name.
    """
    names = [each.resolve().name for each in data]
    if len({*names}) < len(names):
        raise SystemExit("error: two folders of --data have the same name: rename one")
    if tuned is not None and protocol != "A":
        raise SystemExit("error: --tuned has settings that were chosen under protocol A: leave it out")
    rows = rows or [*PROTOCOLS[protocol].rows]
    about = with_reference(PROTOCOLS[protocol], reference, rows, [*dict(encoder)])
    begun, failed = [], []
    for folder, name in zip(data, names, strict=True):  # a mistake in any set is found before the first run
        of_set, of_seeds = output / protocol / name, seeds or [*about.seeds]
        try:
            models = dict(encoder)
            begun.append(RankedSet.begin(folder, about, of_seeds, rows, of_set, models, tuned, processes))
        except CommandFailed as failure:
            say(f"{name}: {failure}")
            failed.append(name)
    for each in begun:
        failed += [f"{each.name}/{key}" for key in each.measure()]
        if results is not None:
            write_results(results, each.name, protocol, each.output, reference)
    return failed


def named_model(text: str) -> tuple[str, str]:
    """The name in the table and the model, of NAME=MODEL.

    Raises:
        ArgumentTypeError: it is no such text.
    """
    name, _, model = text.partition("=")
    if not name or not model:
        raise ArgumentTypeError(f"{text!r} is not NAME=MODEL, such as MiniLM=models/minilm")
    return name, model


def parsed(typed: Sequence[str] | None = None) -> dict[str, Any]:
    """The arguments of `main`, as typed; of this process by default."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders that recipes wrote")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="A", help="see above (default: A)")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        action=Seeds,
        help=(
            "seeds of the splits, and of the training of CLLM4Rec; the other systems train with seed 0 "
            "(default: 0 to 2; 0 and 1 with last-shuffled; 0 with last and time)"
        ),
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        choices=list(ROWS),
        help=f"rows of the table (default: of A those without order and encoder): {'; '.join(ROWS)}",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"seed 0 and the rows {'; '.join(QUICK)}, compared with the first, unless flags say otherwise",
    )
    parser.add_argument(
        "--encoder",
        type=named_model,
        nargs="+",
        default=[],
        metavar="NAME=MODEL",
        help="models that read texts in rows with ENCODER, by their names in the table: names or folders",
    )
    parser.add_argument(
        "--reference",
        metavar="ROW",
        help='row that is compared with all others (default: CLLM4Rec; "CLLM4Rec, in order")',
    )
    parser.add_argument("--tuned", type=Path, help="OUTPUT of experiments.tune; rows have chosen settings")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="of each command that trains or evaluates; they share its batches (default: 1)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and tables")
    parser.add_argument("--results", type=Path, help="folder of CSV files that get a line for each run")
    arguments = vars(parser.parse_args(typed))
    if arguments["processes"] < 1:
        parser.error(f"--processes is {arguments['processes']}: it has to be at least 1")
    if arguments.pop("quick"):
        arguments["seeds"] = arguments["seeds"] or [0]
        arguments["reference"] = arguments["reference"] or (None if arguments["rows"] else QUICK[0])
        arguments["rows"] = arguments["rows"] or list(QUICK)
    return arguments


if __name__ == "__main__":
    with ends_in_one_line("resumes it"):
        failed_runs = main(**parsed())
    if failed_runs:
        raise SystemExit(f"error: {len(failed_runs)} runs failed, as reported above")
