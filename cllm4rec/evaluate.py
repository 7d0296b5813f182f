"""Measure a run on held-out events: cllm4rec evaluate --help"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from cllm4rec.commands.dataset_report import warn_of_added_events
from cllm4rec.commands.entry import run, say
from cllm4rec.commands.evaluate_options import EvaluateOptions, check_options, metrics_and_lengths
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
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure, measure_choices
from cllm4rec.files.damage import reading
from cllm4rec.files.schema import read_json
from cllm4rec.files.writing import write_table, write_text
from cllm4rec.models import load
from cllm4rec.training.launched import is_main_process, n_launched
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:  # it imports torch
    from accelerate import Accelerator


def main(argv: Sequence[str]) -> None:
    with CommandLine("evaluate", argv) as line:
        (options,) = line.parse("Measure a run on held-out events.", [EvaluateOptions])
        check_options(options)
        _evaluate(options)


def _evaluate(options: EvaluateOptions) -> None:
    folder = RunFolder.open(options.run)
    dataset = folder.dataset(options.dataset)
    other = folder if options.diversity else None
    if options.against is not None:
        other = _other_run(options.against, dataset)
    accelerator = _processes()
    backbones = _backbones(options.backbone, folder, other)
    measured = _measure(options, folder, dataset, accelerator, backbones[0], is_other=False)
    compared = None
    if other is not None:
        compared = _measure(options, other, dataset, accelerator, backbones[1], is_other=True)
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
    *,
    is_other: bool,
) -> MeasuredRun:
    """Load the model of a run and measure it.

    The other run is measured without diversity, and by scores if it knows no other way.
    """
    model = load(folder, verify=options.verify, backbone=backbone)
    diversity = 0.0 if is_other else options.diversity
    by = "scores" if is_other and options.by not in model.ways else options.by
    part: Any = options.split
    shared: dict[str, Any] = {"accelerator": accelerator}
    if options.candidates is None:
        names, ks = metrics_and_lengths(options)
        with model.scored_by(by):
            result = measure(model, dataset, part, metrics=names, ks=ks, diversity=diversity, **shared)
        how = "; scores of the language model alone" if by == "language" else ""
    else:
        n, draws, seed = options.candidates, options.draws, options.seed
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
        by=by,
        part=part,
        protocol=result.conditions.protocol + how,
        input_parts=input_parts(dataset, part),
        unit="user" if options.candidates is None else "event",
        n_items=dataset.n_items,
        result=result,
    )


if __name__ == "__main__":
    run(main)
