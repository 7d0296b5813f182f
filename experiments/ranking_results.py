"""Results of `experiments.full_ranking` in CSV files: a line for each run and each difference of rows."""

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.files.writing import write_text
from cllm4rec.training.run_folder import RunFolder
from experiments.report import METRICS_FILE
from experiments.tuning.trials import DATASET, RUN

ENCODER = '"$ENCODER"'
Line = dict[str, str]  # column -> text
RUNS, DIFFERENCES = "runs.csv", "differences.csv"
KEYS = {  # file -> columns of which two lines differ in at least one
    RUNS: ("set", "protocol", "row", "seed"),
    DIFFERENCES: ("set", "protocol", "row", "metric"),
}


def result_line(set_name: str, row: str, seed: int, result: Mapping[str, Any], run: Path) -> Line:
    """A run: its metrics with their 95 % intervals, its costs, and what it was measured with.

    Args:
        set_name: of the dataset.
        row: of the table.
        seed: of the split.
        result: of the row in results.json.
        run: its folder, evaluated on test events.
    """
    measured, description = json.loads((run / METRICS_FILE).read_text()), RunFolder.open(run).description
    quality: dict[str, float | str] = {}
    for metric, value in measured["metrics"].items():
        low, high = measured["intervals"].get(metric, ("", ""))
        quality |= {metric: value, f"{metric} low": low, f"{metric} high": high}
    versions = ", ".join(f"{name} {version}" for name, version in description.versions.items())
    cells = {
        **dict(zip(KEYS[RUNS], (set_name, "A", row, seed), strict=True)),
        "system": description.system,
        "users": measured["n_users"],
        **quality,
        "training_cpu_seconds": result["training_cpu_seconds"],
        "evaluation_cpu_seconds": result["evaluation_cpu_seconds"],
        "peak_mib": result["peak_mib"],
        "model_numbers": model_numbers(run),
        "versions": versions,
        **result["dataset"],
        "code_sha256": result["code_sha256"],
        "command": command(result["flags"], seed),
    }
    return texts(cells)


def difference_line(set_name: str, row: str, metric: str, seeds: Sequence[int], values: np.ndarray) -> Line:
    """The reference minus a row: the mean over users, with its 95 % bootstrap interval.

    Args:
        set_name: of the dataset.
        row: of the table.
        metric: that is compared.
        seeds: of the splits.
        values: (n_users,), each the mean over the user's seeds.
    """
    low, high = bootstrap_interval(values)
    cells = {
        **dict(zip(KEYS[DIFFERENCES], (set_name, "A", row, metric), strict=True)),
        "seeds": " ".join(map(str, seeds)),
        "users": len(values),
        "difference": float(values.mean()),
        "low": low,
        "high": high,
    }
    return texts(cells)


def texts(cells: Mapping[str, object]) -> Line:
    """Cells as text; numbers with a fraction have six digits."""
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in cells.items()}


def model_numbers(run: Path) -> int:
    """Numbers in the model.safetensors of the last stage of a run."""
    with safe_open(RunFolder.open(run).stage_folder() / "model.safetensors", framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def command(flags: Sequence[Sequence[str] | None], seed: int) -> str:
    """The commands of a run in one line, with the shell variables DATASET, RUN and ENCODER.

    Args:
        flags: of pretrain, and of finetune; None: no such stage.
        seed: of the split; CLLM4Rec trains with it too.
    """
    first, second = flags
    seeded = [] if "--system" in (first or []) else ["--seed", str(seed)]
    stages = [("pretrain", [*("--dataset", DATASET, "--output", RUN), *quoted([*(first or []), *seeded])])]
    if second is not None:
        stages.append(("finetune", ["--run", RUN, *quoted([*second, *seeded])]))
    stages.append(("evaluate", ["--run", RUN]))
    return " && ".join(" ".join(["cllm4rec", stage, *arguments]) for stage, arguments in stages)


def quoted(flags: Sequence[str]) -> list[str]:
    """Flags as typed in a shell; the value of --encoder is the variable ENCODER."""
    after = zip(["", *flags], flags, strict=False)
    return [ENCODER if before == "--encoder" else shlex.quote(flag) for before, flag in after]


def read_lines(file: Path) -> list[Line]:
    """The lines of a file of results.

    Raises:
        SystemExit: there is none, or it is another table.
    """
    if not file.is_file():
        raise SystemExit(f"error: {file} is not there: experiments.full_ranking --results writes it")
    with file.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if not {*KEYS[file.name]} <= {*(reader.fieldnames or ())}:
            raise SystemExit(f"error: {file} is no table of results: name another folder of results")
        return list(reader)


def write_lines(file: Path, lines: Sequence[Line]) -> None:
    """Write lines into a file, in place of those of the same key; others stay.

    Raises:
        SystemExit: the file is another table.
    """
    key = KEYS[file.name]
    before = read_lines(file) if file.is_file() else []
    kept = {tuple(line[name] for name in key): line for line in [*before, *lines]}
    columns = dict.fromkeys(name for line in kept.values() for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())
