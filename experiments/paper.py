"""CLLM4Rec with the settings of its paper, on a pretrained backbone: for whoever has a GPU and the weights.

    python -m experiments.paper --data datasets/beauty --backbone gpt2 --output runs/paper --dry-run
    python -m experiments.paper --data datasets/beauty --backbone gpt2 --output runs/paper

`--preset paper` trains with batches of 20, for up to 100 epochs of pretraining and 150 of finetuning. So use
`--dry-run` first: it times some steps of pretraining, and prints memory and time. `--minutes` limits each
stage, to see that everything runs; the table says so then.

Data: the dataset folders seed0, seed1, ... that `experiments.recipes` wrote to each DATA.

Prints a table of test metrics, a row for each dataset folder; "not run" where no run has ended. OUTPUT has a
run folder for each. An interrupted call goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path

from cllm4rec.commands.entry import say
from cllm4rec.training.run_folder import RunFolder
from experiments.commands import Seeds, argument_parser, run_command
from experiments.report import evaluate, is_evaluated, markdown_table, read_metrics

METRICS = ("recall@20", "recall@40", "ndcg@100")
NOT_RUN = "not run"


def run_of(output: Path, data: Path, seed: int, backbone: str) -> Path:
    """The run folder of a dataset folder and a backbone."""
    return output / data.resolve().name / f"seed{seed}" / Path(backbone).name


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
    training = RunFolder.open(run).description.stages["finetune"].training
    minutes = (training or {}).get("max_minutes")
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
    """Run what has not ended, and print the table."""
    rows = []
    for folder in data:
        for seed in seeds:
            dataset, run = folder / f"seed{seed}", run_of(output, folder, seed, backbone)
            if not (dataset / "dataset.json").is_file():
                raise SystemExit(f"error: {dataset} is no dataset: experiments.recipes --seeds makes it")
            if dry_run:
                settings = ["--preset", "paper", "--backbone", backbone, "--dry-run"]
                run_command("pretrain", "--dataset", dataset, "--output", run, *settings)
            elif not is_evaluated(run):
                train(dataset, run, backbone, seed, minutes)
            rows.append(table_row(f"{folder.resolve().name}, seed {seed}", run))
    say("\n" + markdown_table(["dataset", "backbone", *METRICS, "stopped after"], rows))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders that recipes wrote, one for each set"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", action=Seeds, default=[0], help="of the splits and of training"
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
    main(**vars(parser.parse_args()))
