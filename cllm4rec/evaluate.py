"""Measure a run on held-out events: python -m cllm4rec.evaluate --help"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cllm4rec.commands.entry import n_launched, run, say
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.files.writing import check_file, check_table_name, write_table, write_text
from cllm4rec.messages import counted
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.run_folder import RunFolder


@dataclass
class EvaluateOptions:
    """Flags of evaluate."""

    run: str = setting(metavar="FOLDER", help="run folder")
    split: str = setting(
        "test",
        choices=["validation", "test"],
        help=(
            "held-out events to predict; the input is the training events and histories, and for test in "
            "splits in time the validation events too; known items are left out"
        ),
    )
    candidates: int | None = setting(
        None,
        ge=2,
        help=(
            "rank this many items for each held-out event, its item and random others; by default the full "
            "catalogue"
        ),
    )
    draws: int = setting(5, ge=1, lt=1_000_001, help="candidate sets per held-out event")
    by: str = setting(
        "scores",
        choices=["scores", "likelihood", "generation"],
        help=(
            "how a candidate is chosen: by scores; for rsllm also by likelihood of the titles, or by "
            "generation of one"
        ),
    )
    seed: int = setting(0, ge=0, help="seed of the candidate sets")
    json: str | None = setting(None, metavar="FILE", help="also write the result to this file")
    per_user: str | None = setting(
        None, metavar="FILE", help="write the metrics of each user to this file (.parquet, .csv or .jsonl)"
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=DATASET)
    verify: bool = setting(False, help=VERIFY)
    backbone: str | None = setting(None, metavar="FOLDER", help=BACKBONE)


def main(argv: Sequence[str]) -> None:
    with CommandLine("evaluate", argv) as line:
        (options,) = line.parse("Measure a run on held-out events.", [EvaluateOptions])
        _check(options)
        _evaluate(options)


def _check(options: EvaluateOptions) -> None:
    """Refuse what cannot be measured or written."""
    if n_launched() > 1:
        raise ValueError(
            f"evaluate measures in one process, and WORLD_SIZE is {n_launched()}: start it without a launcher"
        )
    if options.per_user:
        check_table_name(options.per_user)
    if options.json:
        check_file(options.json)
    if options.candidates is None and options.by != "scores":
        raise ValueError(f"`by={options.by}` chooses among candidates: say how many with `candidates`")


def _evaluate(options: EvaluateOptions) -> None:
    # Imported once the flags are right: torch takes seconds.
    from cllm4rec.evaluation import AMONG_CANDIDATES, PROTOCOL, measure

    folder = RunFolder.open(options.run)
    dataset = folder.dataset(options.dataset)
    model = load(folder, verify=options.verify, backbone=options.backbone)
    task = dataset.task("validation" if options.split == "validation" else "test")
    choice: dict[str, Any] = {
        "candidates": options.candidates,
        "draws": options.draws,
        "seed": options.seed,
        "by": options.by,
    }
    result = measure(model, task.input, task.held_out, task.masked, **choice)
    protocol = PROTOCOL
    if options.candidates is not None:
        protocol = AMONG_CANDIDATES.format(**choice | {"draws": counted(options.draws, "draw")})
    input_name = "training" if task.input is dataset.seen else "training and validation"
    n, unit = len(result.users), "user" if options.candidates is None else "event"
    say(
        f"{model.name} after {folder.stage_folder().name}, on {options.split}: {counted(n, unit)}, "
        f"{counted(dataset.n_items, 'item')} ({protocol}; input: {input_name} events)"
    )
    if result.n_without_history:
        verb = "has" if result.n_without_history == 1 else "have"
        say(f"  {counted(result.n_without_history, f'further {unit}')} {verb} no history: left out")
    for name, value in result.metrics.items():
        say(f"  {name:<14} {value:.4f}")
    say(f"  {n / result.seconds:,.0f} {unit}s/s, {result.seconds:.1f} s")
    if options.json:
        described: dict[str, Any] = {
            "system": model.name,
            "dataset": options.dataset or folder.description.dataset.path,
            "split": options.split,
            "protocol": protocol,
            "input": input_name,
            f"n_{unit}s": n,
            "n_items": dataset.n_items,
            "metrics": result.metrics,
            "seconds": result.seconds,
            f"{unit}s_per_second": n / result.seconds,
        }
        write_text(Path(options.json), json.dumps(described, indent=2) + "\n")
    if options.per_user:
        table = pl.DataFrame({"user_id": dataset.user_ids.names(result.users), **result.per_user})
        write_table(table, options.per_user)


if __name__ == "__main__":
    run(main)
