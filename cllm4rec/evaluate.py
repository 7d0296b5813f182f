"""Measure a run on held-out events: cllm4rec evaluate --help"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from cllm4rec.commands.dataset_report import warn_of_added_events
from cllm4rec.commands.entry import run, say
from cllm4rec.commands.evaluation_report import (
    MeasuredRun,
    audit_lines,
    comparison_lines,
    described_comparison,
    described_run,
    input_parts,
    report_lines,
    slice_lines,
)
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure, measure_choices
from cllm4rec.files.damage import reading
from cllm4rec.files.schema import read_json
from cllm4rec.files.writing import check_file, check_table_name, write_table, write_text
from cllm4rec.metrics import FAMILIES, KS, OF_CATALOGUE, requested_metrics
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.launched import is_main_process, n_launched
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:  # it imports torch
    from accelerate import Accelerator


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
    metrics: str | None = setting(
        None,
        metavar="NAMES",
        help=(
            f"metrics, separated by commas: {', '.join(FAMILIES)}, or one with a list length, as in "
            "ndcg@100; all by default"
        ),
    )
    ks: str | None = setting(
        None,
        metavar="NUMBERS",
        help=f"list lengths, separated by commas; {','.join(map(str, KS))} by default",
    )
    slices: bool = setting(
        False,
        help=(
            "also print the metrics by the user's input events, by the held-out item's training events, and "
            "by the days between the held-out event and an input event"
        ),
    )
    against: str | None = setting(
        None,
        metavar="FOLDER",
        help="another run on the dataset: also print the paired differences, this run minus the other",
    )
    diversity: float = setting(
        0.0,
        ge=0,
        le=1,
        help=(
            "measure lists as recommend --diversity makes them; without --against also print the paired "
            "differences from lists without it"
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
        choices=["scores", "language", "likelihood", "generation", "constrained"],
        help=(
            "by scores; for rsllm also by those of the language model alone (language), and a candidate by "
            "likelihood of its title, compared with that without the history, by generation of a title, or "
            "constrained to those of the candidates"
        ),
    )
    seed: int = setting(0, ge=0, help="seed of the candidate sets")
    audit: bool = setting(
        False, help="also print how many events were input, held out and masked, and the hashes of the data"
    )
    json: str | None = setting(None, metavar="FILE", help="also write the result to this file")
    per_user: str | None = setting(
        None, metavar="FILE", help="write the metrics of each user to this file (.parquet, .csv or .jsonl)"
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=DATASET)
    verify: bool = setting(False, help=VERIFY)
    backbone: str | None = setting(
        None, metavar="FOLDER", help=f"{BACKBONE}; also for --against, if that run has the same backbone"
    )


def main(argv: Sequence[str]) -> None:
    with CommandLine("evaluate", argv) as line:
        (options,) = line.parse("Measure a run on held-out events.", [EvaluateOptions])
        _check(options)
        _evaluate(options)


def _check(options: EvaluateOptions) -> None:
    """Refuse what cannot be measured or written."""
    if options.per_user:
        check_table_name(options.per_user)
    if options.json:
        check_file(options.json)
    if options.candidates is not None and (
        options.metrics or options.ks or options.slices or options.diversity
    ):
        raise ValueError(
            "`metrics`, `ks`, `slices` and `diversity` are of the full catalogue: leave out `candidates`"
        )
    if options.candidates is None:
        _check_full_ranking(options)


def _check_full_ranking(options: EvaluateOptions) -> None:
    """Refuse flags of the candidate protocol, and values of each user where no metric has any."""
    for name in ("by", "draws", "seed"):
        value = getattr(options, name)
        if value not in (getattr(EvaluateOptions, name), "language"):
            raise ValueError(f"`{name}={value}` is of choices among candidates: say how many by `candidates`")
    requested = requested_metrics(*_metrics(options))
    if all(metric.family in OF_CATALOGUE for metric in requested):
        for name in ("slices", "per_user"):
            if getattr(options, name):
                raise ValueError(f"`{name}` needs a metric with a value of each user: add one to `metrics`")


def _metrics(options: EvaluateOptions) -> tuple[list[str], list[int]]:
    """The metrics and list lengths asked for."""
    names = list(FAMILIES) if options.metrics is None else _split(options.metrics)
    lengths = list(map(str, KS)) if options.ks is None else _split(options.ks)
    if not all(length.isdecimal() for length in lengths):
        raise ValueError(f"`ks` is {options.ks!r}: give list lengths separated by commas, as in 5,10,20")
    return names, list(map(int, lengths))


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _evaluate(options: EvaluateOptions) -> None:
    folder = RunFolder.open(options.run)
    dataset = folder.dataset(options.dataset)
    other = folder if options.diversity else None
    if options.against is not None:
        other = _other_run(options.against, dataset)
    accelerator = _processes()
    backbones = _backbones(options.backbone, folder, other)
    measured = _measure(options, folder, dataset, accelerator, backbones[0], options.diversity)
    compared = None if other is None else _measure(options, other, dataset, accelerator, backbones[1])
    if not is_main_process():
        return
    warn_of_added_events(dataset)
    for line in _printed(options, dataset, measured, compared):
        say(line)
    if options.json:
        path = options.dataset or folder.description.dataset.path
        described = {"dataset": path, **described_run(measured), "against": None}
        if compared is not None:
            described["against"] = described_comparison(measured, compared)
        write_text(Path(options.json), json.dumps(described, indent=2) + "\n")
    if options.per_user:
        users = dataset.user_ids.names(measured.result.users)
        write_table(pl.DataFrame({"user_id": users, **measured.result.per_user}), options.per_user)


def _printed(
    options: EvaluateOptions, dataset: Dataset, measured: MeasuredRun, compared: MeasuredRun | None
) -> Iterator[str]:
    """The lines of the result."""
    yield from report_lines(measured)
    yield from audit_lines(dataset, measured.part)[: None if options.audit else 1]
    if options.slices:
        yield from slice_lines(measured.result.slices)
    if compared is not None:
        yield from comparison_lines(measured, compared)


def _other_run(path: str, dataset: Dataset) -> RunFolder:
    """The run to compare with.

    Raises:
        ValueError: it is no run, or one of another dataset or split.
    """
    folder = RunFolder.open(path)
    reference = folder.description.dataset
    for name, kind in (("data_sha256", "dataset"), ("split_sha256", "split")):
        if getattr(reference, name) != getattr(dataset.hashes, name):
            raise ValueError(
                f"`against` {path} was trained on another {kind} ({name} differs): name a run on this dataset"
            )
    return folder


def _backbones(
    moved: str | None, folder: RunFolder, other: RunFolder | None
) -> tuple[str | None, str | None]:
    """The moved backbone for the run and for the other: for both if they have the same frozen backbone.

    It is for the other alone if only the other has a frozen backbone.
    """
    if moved is None or other is None:
        return moved, None
    sha256, other_sha256 = _backbone_sha256(folder), _backbone_sha256(other)
    if other_sha256 is None:
        return moved, None
    if sha256 is None:
        return None, moved
    return moved, moved if sha256 == other_sha256 else None


def _backbone_sha256(folder: RunFolder) -> str | None:
    """SHA-256 of the weights of a run's frozen backbone; None without one."""
    from cllm4rec.models.description import FORMAT_VERSION, ModelDescription  # it imports torch

    stage = folder.stage_folder()
    with reading(stage, "train this stage again"):
        description: ModelDescription = read_json(stage / "model.json", ModelDescription, FORMAT_VERSION)
    return description.get("backbone_sha256")


def _processes() -> "Accelerator | None":
    """The processes that a launcher started, which share the users; None without a launcher."""
    if n_launched() == 1:
        return None
    from cllm4rec.training.device import make_accelerator  # it imports torch

    return make_accelerator()


def _measure(
    options: EvaluateOptions,
    folder: RunFolder,
    dataset: Dataset,
    accelerator: "Accelerator | None",
    backbone: str | None,
    diversity: float = 0.0,
) -> MeasuredRun:
    """Load the model of a run and measure it."""
    model = load(folder, verify=options.verify, backbone=backbone)
    part: Any = options.split
    shared: dict[str, Any] = {"accelerator": accelerator}
    if options.candidates is None:
        names, ks = _metrics(options)
        with model.scored_by(options.by):
            result = measure(model, dataset, part, metrics=names, ks=ks, diversity=diversity, **shared)
        how = "" if options.by == "scores" else f"; scored by {options.by} alone"
    else:
        n, draws, seed, by = options.candidates, options.draws, options.seed, options.by
        result = measure_choices(model, dataset, part, n, draws, seed, by, **shared)
        how = f"; chosen by {by}"
    return MeasuredRun(
        run=str(folder.path),
        system=model.name,
        stage=folder.stage_folder().name,
        settings={
            each.name: value
            for each in fields(model.config)
            if (value := getattr(model.config, each.name)) != each.default
        },
        diversity=diversity,
        part=part,
        protocol=result.conditions.protocol + how,
        input_parts=input_parts(dataset, part),
        unit="user" if options.candidates is None else "event",
        n_items=dataset.n_items,
        result=result,
    )


if __name__ == "__main__":
    run(main)
