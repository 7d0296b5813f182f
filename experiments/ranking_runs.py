"""The run of a row of `experiments.full_ranking`: trained, evaluated, and resumed after an interruption."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cllm4rec.files.writing import write_text
from experiments.commands import CommandFailed, run_command
from experiments.ranking_rows import BASES, Flags
from experiments.report import evaluate, read_metrics, run_folder

BY_LANGUAGE = ("--by", "language")  # flags of evaluate


def measured_language_model(
    run: Path, of_run: Mapping[str, Any], results: Path, processes: int = 1
) -> dict[str, Any]:
    """Evaluate the language model of a run of RSLLM, without the score of the sequential system.

    Args:
        run: folder of the measured run.
        of_run: its row. The costs of training are its costs, with those of fitting the weight of the score.
        results: folder for the metrics.
        processes: of the evaluation.

    Returns:
        As `measured_run`, and `of_run`, the metrics of the run with the score.

    Raises:
        CommandFailed: the command failed.
    """
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    evaluation = evaluate(run, *BY_LANGUAGE, results=results, processes=processes)
    return {
        "metrics": read_metrics(results),
        "training_cpu_seconds": of_run["training_cpu_seconds"],
        "evaluation_cpu_seconds": evaluation.cpu_seconds,
        "peak_mib": of_run["peak_mib"],
        "of_run": of_run["metrics"],
    }


def measured_run(
    dataset: Path, run: Path, seed: int, made_of: dict[str, Any], processes: int = 1
) -> dict[str, Any]:
    """Train and evaluate a system. What was interrupted goes on, if it is the same; else it begins anew.

    Args:
        dataset, run: folders.
        seed: of the split.
        made_of: the flags of the row (`flags`), and hashes of dataset and code. A file beside `run` notes
            them meanwhile. A key of BASES among the flags stands for the folder of its row beside `run`.
        processes: of each command; a training that goes on may have another number.

    Returns:
        Test metrics, CPU seconds of training and of evaluation, and the largest peak memory of a command.
        The costs of training are None where it went on: an interrupted command leaves no record of them.

    Raises:
        CommandFailed: a command failed. A later call begins anew, unless progress was saved in this one.
    """
    bases = {flag: str(run_folder(run.parent, row)) for flag, row in BASES.items()}
    flags: Flags = made_of["flags"]
    pretrain_flags, finetune_flags = [bases.get(flag, flag) for flag in flags[0]], flags[1]
    noted, begun = run.with_name(f"{run.name}.begun.json"), json.dumps(made_of) + "\n"
    resumed = run.is_dir() and noted.is_file() and noted.read_bytes() == begun.encode()
    if not resumed:
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        write_text(noted, begun)
    saved = _saved_at(run)
    common = [*([] if "--system" in pretrain_flags else ["--seed", str(seed)]), "--resume"]
    try:
        first = ["--dataset", dataset, "--output", run, *pretrain_flags, *common]
        costs = [run_command("pretrain", *first, processes=processes)]
        if finetune_flags is not None:
            costs.append(run_command("finetune", "--run", run, *finetune_flags, *common, processes=processes))
        evaluation = evaluate(run, processes=processes)
    except CommandFailed:  # a damaged file may be why, or a signal
        if _saved_at(run) == saved:
            noted.unlink()
        raise
    noted.unlink()
    return {
        "metrics": read_metrics(run),
        "training_cpu_seconds": None if resumed else sum(cost.cpu_seconds for cost in costs),
        "evaluation_cpu_seconds": evaluation.cpu_seconds,
        "peak_mib": None if resumed else max(cost.peak_mib for cost in [*costs, evaluation]),
    }


def _saved_at(run: Path) -> dict[Path, int]:
    """When stages under way saved their progress, and weights were written: file -> time in ns."""
    files = [*run.rglob("*-state.safetensors"), *run.rglob("manifest.json")]
    return {file: file.stat().st_mtime_ns for file in files}
