"""Measure a run on held-out events: python -m cllm4rec.evaluate --help"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from cllm4rec.commands.entry import n_launched, run, say
from cllm4rec.commands.flags import parse
from cllm4rec.commands.options import BACKBONE_FLAG, VERIFY
from cllm4rec.data.splits import input_events
from cllm4rec.files.writing import check_file, check_table_name, write_table, write_text
from cllm4rec.models import load
from cllm4rec.training.run_folder import RunFolder


@dataclass
class EvaluateOptions:
    """Flags of evaluate."""

    run: str = field(metadata={"help": "run folder"})
    split: str = field(
        default="test",
        metadata={"help": "which held-out events to find, from training events and histories (test in splits in time: from "
                          "validation events too); known events are masked",
                  "choices": ["validation", "test"]},
    )  # fmt: skip
    candidates: int | None = field(
        default=None,
        metadata={"ge": 2,
                  "help": "choose among so many items, one held out and the others at random; all if not given"},
    )  # fmt: skip
    draws: int = field(
        default=5,
        metadata={"ge": 1, "lt": 1_000_001, "help": "sets of candidates for each held-out event"},
    )
    by: str = field(
        default="scores",
        metadata={"help": "how a candidate is chosen: scores; rsllm also by likelihood of the titles, or by generation of one",
                  "choices": ["scores", "likelihood", "generation"]},
    )  # fmt: skip
    seed: int = field(default=0, metadata={"ge": 0, "help": "seed of the candidates"})
    json: str | None = field(default=None, metadata={"help": "also write the result to this file"})
    per_user: str | None = field(
        default=None, metadata={"help": "write each user's values here (.parquet, .csv or .jsonl)"}
    )
    dataset: str | None = field(default=None, metadata={"help": "the run's dataset, if it has moved"})
    verify: bool = field(default=False, metadata=VERIFY)
    backbone: str | None = field(default=None, metadata=BACKBONE_FLAG)


def main(argv: Sequence[str]) -> None:
    (options,) = parse("evaluate", "Measure a run on held-out events.", [EvaluateOptions], argv)
    from cllm4rec.evaluation import (  # once the flags are right: torch takes seconds
        AMONG_CANDIDATES,
        PROTOCOL,
        measure,
    )

    if n_launched() > 1:
        raise ValueError(
            f"evaluate measures in one process, and WORLD_SIZE is {n_launched()}: start it without a launcher"
        )
    if options.per_user:
        check_table_name(options.per_user)
    if options.json:
        check_file(options.json)
    folder = RunFolder.open(options.run)
    dataset = folder.dataset(options.dataset)
    model = load(options.run, verify=options.verify, backbone=options.backbone)
    seen = input_events(dataset, options.split)
    masked = dataset.seen if options.split == "validation" else dataset.only("train", "validation", "history")
    held_out = dataset.validation if options.split == "validation" else dataset.test
    if not len(held_out.interactions):
        raise ValueError(f"the dataset has no {options.split} events: prepare it with a split to measure")
    how = {"candidates": options.candidates, "draws": options.draws, "seed": options.seed, "by": options.by}
    if options.candidates is None and options.by != "scores":
        raise ValueError(f"--by {options.by} chooses among candidates: say how many with --candidates")
    result = measure(model, seen, held_out, masked, **how)
    protocol = PROTOCOL if options.candidates is None else AMONG_CANDIDATES.format(**how)
    n = len(result.users)
    stage, given = (
        folder.stage_folder().name,
        "training" if seen is dataset.seen else "training and validation",
    )
    what = "users" if options.candidates is None else "events"
    say(
        f"{model.name} after {stage}, on {options.split}: {n:,} {what}, {dataset.n_items:,} items "
        f"({protocol}; input: {given} events)"
    )
    if result.n_without_history:
        say(f"  {result.n_without_history:,} further {what} have no history to go by and are left out")
    for name, value in result.metrics.items():
        say(f"  {name:<14} {value:.4f}")
    say(f"  {n / result.seconds:,.0f} {what}/s, {result.seconds:.1f} s")
    if options.json:
        described = {
            "system": model.name,
            "dataset": folder.description.dataset.path if options.dataset is None else options.dataset,
            "split": options.split,
            "protocol": protocol,
            "input": given,
            f"n_{what}": n,
            "n_items": dataset.n_items,
            "metrics": result.metrics,
            "seconds": result.seconds,
            f"{what}_per_second": n / result.seconds,
        }
        write_text(Path(options.json), json.dumps(described, indent=2) + "\n")
    if options.per_user:
        table = pl.DataFrame({"user_id": dataset.user_ids.names(result.users), **result.per_user})
        write_table(table, options.per_user)


if __name__ == "__main__":
    run(main)
