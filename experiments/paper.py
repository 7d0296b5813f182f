"""CLLM4Rec with the settings of its paper, on a pretrained backbone: for whoever has a GPU and the weights.

    python -m experiments.paper --data datasets/beauty --backbone gpt2 --output runs/paper --dry-run
    python -m experiments.paper --data datasets/beauty --backbone gpt2 --output runs/paper

`--preset paper` trains with batches of 20, for up to 100 epochs of pretraining and 150 of finetuning. So use
`--dry-run` first: it times some steps of pretraining, and prints its memory and time. `--minutes` limits each
stage, to see that everything runs; the table says so then. A run is not continued with another limit.

Data: the dataset folders seed0, seed1, ... that `experiments.recipes` wrote to each DATA.

Prints a table of test metrics, a row for each dataset folder; "not run" where no run has ended. OUTPUT has a
run folder for each. An interrupted call resumes where it stopped.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cllm4rec.commands.entry import say
from cllm4rec.commands.stage_settings import with_absolute_paths
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.training.run_folder import RunFolder
from experiments.commands import CommandFailed, Seeds, argument_parser, ends_in_one_line, run_command
from experiments.report import evaluate, is_evaluated, markdown_table, read_metrics

METRICS = ("recall@20", "recall@40", "ndcg@100")
NOT_RUN = "not run"


def run_of(output: Path, data: Path, seed: int, backbone: str) -> Path:
    """The run folder of a dataset folder and a backbone."""
    return output / data.resolve().name / f"seed{seed}" / Path(backbone).name


def check_run(run: Path, dataset: Path, backbone: str, minutes: float | None) -> None:
    """Refuse to go on with a run of other data, another backbone or another limit.

    Raises:
        SystemExit: the run is one of these.
    """
    if not (run / "run.json").is_file():
        return
    folder = RunFolder.open(run)
    folder.dataset(dataset)  # compares the hashes
    described = [folder.description.settings_of(stage) for stage in ("pretrain", "finetune")]
    wanted = asdict(with_absolute_paths(CLLM4RecConfig(backbone=backbone)))["backbone"]
    for settings in filter(None, described):
        limit = (settings.training or {}).get("max_minutes")
        if settings.system["backbone"] != wanted or limit != minutes:
            begun = f"backbone {settings.system['backbone']} and --minutes {limit}"
            raise SystemExit(f"error: {run} was begun with {begun}: give these, or name another --output")


def train(dataset: Path, run: Path, backbone: str, seed: int, minutes: float | None) -> None:
    """Train both stages, or go on with them, and evaluate the run on test events.

    Raises:
        CommandFailed: a command failed; its error message was printed.
    """
    limit = [] if minutes is None else ["--max-minutes", minutes]
    shared = ["--seed", seed, *limit, "--resume"]
    settings = ["--preset", "paper", "--backbone", backbone]
    run_command("pretrain", "--dataset", dataset, "--output", run, *settings, *shared)
    run_command("finetune", "--run", run, *shared)
    evaluate(run)


def table_row(dataset: str, run: Path) -> list[str]:
    """Name of the dataset, backbone, metrics and limit of time."""
    if not is_evaluated(run):
        return [dataset, run.name, *[NOT_RUN] * len(METRICS), ""]
    metrics = read_metrics(run)
    training = RunFolder.open(run).description.stages["pretrain"].training or {}
    minutes = training.get("max_minutes")
    limit = "" if minutes is None else f"{minutes:g} minutes a stage"
    return [dataset, run.name, *(f"{metrics[name]:.4f}" for name in METRICS), limit]


def main(
    data: Sequence[Path],
    seeds: Sequence[int],
    backbone: str,
    output: Path,
    minutes: float | None = None,
    dry_run: bool = False,
) -> None:
    """Run what has not ended, and print the table.

    Raises:
        SystemExit: a dataset is missing, a run is of other conditions, or a command failed.
    """
    places = [
        (folder / f"seed{seed}", run_of(output, folder, seed, backbone), seed)
        for folder in data
        for seed in seeds
    ]
    for dataset, run, _ in places:
        if not (dataset / "dataset.json").is_file():
            raise SystemExit(f"error: {dataset} is no dataset: experiments.recipes --seeds makes it")
        if not dry_run:
            check_run(run, dataset, backbone, minutes)
    n_failed, rows = 0, []
    for dataset, run, seed in places:
        try:
            if dry_run:
                settings = ["--preset", "paper", "--backbone", backbone, "--dry-run"]
                run_command("pretrain", "--dataset", dataset, "--output", run, *settings)
            elif not is_evaluated(run):
                train(dataset, run, backbone, seed, minutes)
        except CommandFailed as failure:
            say(f"{dataset}: {failure}")
            n_failed += 1
        rows.append(table_row(f"{dataset.parent.resolve().name}, seed {seed}", run))
    say("\n" + markdown_table(["dataset", "backbone", *METRICS, "limit"], rows))
    if n_failed:
        raise SystemExit(f"error: {n_failed} of {len(places)} runs failed, as reported above")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders that recipes wrote, one for each set"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", action=Seeds, default=[0], help="seeds of the splits and of training"
    )
    parser.add_argument(
        "--backbone",
        required=True,
        help="name or folder of a Hugging Face causal language model, or its .gguf",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--minutes", type=float, help="limit of each stage, to see that everything runs")
    parser.add_argument(
        "--dry-run", action="store_true", help="time some steps of pretraining, and train nothing"
    )
    arguments = vars(parser.parse_args())
    with ends_in_one_line("resumes it"):
        main(**arguments)
