"""Tables of `experiments.backbones`: accuracy, what was trained how long, and paired differences."""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from cllm4rec.files.schema import checked
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.records import MetricsLine
from cllm4rec.training.run_folder import RunFolder
from experiments.backbone_rows import Row, StageCost
from experiments.report import METRICS_FILE, difference_cell, markdown_table, paired_differences

METRICS = ("recall@20", "recall@40", "ndcg@100")
COMPARED = "ndcg@100"


def tables(runs: Mapping[str, tuple[Path, Row]]) -> str:
    """The tables of the measured variants.

    Args:
        runs: name -> run folder and its row.
    """
    parts = [_accuracy(runs), *([_differences(runs)] if len(runs) > 1 else []), _cost(runs)]
    return "\n\n".join(parts)


def _accuracy(runs: Mapping[str, tuple[Path, Row]]) -> str:
    lines = []
    for name, (run, _) in runs.items():
        result: dict[str, Any] = json.loads((run / METRICS_FILE).read_text())
        cells = []
        for metric in METRICS:
            low, high = result["intervals"][metric]
            cells.append(f"{result['metrics'][metric]:.4f} [{low:.4f}, {high:.4f}]")
        lines.append([name, *cells])
    return markdown_table(["backbone", *METRICS], lines)


def _differences(runs: Mapping[str, tuple[Path, Row]]) -> str:
    """Paired differences over users of every two variants."""
    lines = []
    for (name, (run, _)), (other, (other_run, _)) in combinations(runs.items(), 2):
        values = paired_differences(run, other_run, COMPARED)["difference"].to_numpy()
        lines.append([f"{name} minus {other}", difference_cell(values)])
    return markdown_table([f"paired over users, {COMPARED}", "mean and 95 % interval"], lines)


def _cost(runs: Mapping[str, tuple[Path, Row]]) -> str:
    """What was trained how long.

    "At least" marks interrupted stages, whose first calls are not counted; "time limit" those that it ended.
    """
    lines = []
    for name, (run, row) in runs.items():
        folder = RunFolder.open(run)
        pretrained, finetuned = (
            [line for line in folder.metrics() if line.stage == stage] for stage in ("pretrain", "finetune")
        )
        trained_with = (_training(folder, stage) for stage in ("pretrain", "finetune"))
        stages = [row.stages[stage] for stage in ("pretrain", "finetune")]
        scoring = json.loads((run / METRICS_FILE).read_text())["seconds"]
        lines.append(
            [
                name,
                _trained(folder),
                *map(epochs_cell, (pretrained, finetuned), trained_with),
                *(_total(stages, quantity) for quantity in ("seconds", "cpu_seconds")),
                *map(_speed, (pretrained, finetuned)),
                f"{max(each.cost.peak_mib for each in stages if each.cost) / 1024:.2f}",
                f"{scoring:.1f}",
            ]
        )
    header = [
        *("backbone", "trained weights", "epochs of pretraining (best)", "of finetuning (best)"),
        *("hours", "CPU hours", "tokens/s in pretraining", "in finetuning"),
        *("peak memory (GiB)", "scoring (s)"),
    ]
    return markdown_table(header, lines)


def _trained(folder: RunFolder) -> str:
    """Which weights were trained besides the ID tables."""
    settings = folder.description.stages["pretrain"].system
    return {"frozen": "ID tables", "lora": "ID tables, adapters"}.get(str(settings["tune"]), "all")


def _training(folder: RunFolder, stage: str) -> TrainConfig:
    """The settings of training of an ended stage."""
    settings = folder.description.stages[stage].training
    return checked(settings, TrainConfig, f"settings of {stage}")


def epochs_cell(lines: list[MetricsLine], training: TrainConfig) -> str:
    """Number of epochs, and that of the best one, counted from 1; the last "best" line is kept."""
    best = max((number for number, line in enumerate(lines, 1) if line.best), default=len(lines))
    mark = ", time limit" if _ended_by_time(lines, best, training) else ""
    return f"{len(lines)} ({best}){mark}"


def _ended_by_time(lines: list[MetricsLine], best: int, training: TrainConfig) -> bool:
    """Whether the time limit ended a validated stage: in its last epoch, or before epochs and patience did.

    Args:
        lines: of its epochs. The first validated one is the first after warm-up.
        best: number of the best epoch, from 1.
        training: its settings.
    """
    if training.max_minutes is None:
        return False
    validated = [number for number, line in enumerate(lines, 1) if line.validation is not None]
    warmup = validated[0] - 1 if validated else len(lines)
    stale = training.validate_every * sum(number > best for number in validated)
    complete = len(lines) >= warmup + training.epochs or stale >= training.patience
    return not complete or sum(line.seconds for line in lines) >= 60 * training.max_minutes


def _total(stages: list[StageCost], quantity: str) -> str:
    """Hours of all stages."""
    hours = sum(getattr(each.cost, quantity) for each in stages) / 3600
    interrupted = any(each.calls > 1 for each in stages)
    return f"{'at least ' if interrupted else ''}{hours:.2f}"


def _speed(lines: list[MetricsLine]) -> str:
    """Tokens per second of a stage's training, validation not included."""
    seconds = sum(line.seconds for line in lines)
    tokens = sum(line.tokens_per_second * line.seconds for line in lines)
    return f"{tokens / seconds:,.0f}" if seconds else ""
