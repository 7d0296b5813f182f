"""What a pretrained backbone is worth to CLLM4Rec: frozen, under LoRA, with random weights, and `tiny`.

    OMP_NUM_THREADS=1 python -m experiments.backbones --backbone FOLDER --data datasets/ml-100k \
        --output runs/backbones

The variants:
  tiny    the built-in backbone, trained in full, with the package's defaults
  frozen  the pretrained model, its weights frozen: the ID tables are trained
  lora    the pretrained model, frozen, with trained low-rank adapters
  random  the pretrained model's architecture with random weights (saved in OUTPUT/random-weights), frozen

All but tiny are trained with the same settings, and no stage takes longer than its limit of `--max-minutes`.
Their learning rates were chosen with the frozen variant, on validation events. Validation events also choose
the weights; test events are reported once.

Data: the dataset folder seed0 (protocol A) that `experiments.recipes` wrote to DATA.

Prints three tables: test metrics with 95 % intervals over users, what was trained how long, and paired
differences of NDCG@100. Stages that the time limit ended are marked. OUTPUT/tables.md holds the tables,
OUTPUT/VARIANT.json the measured row of a variant. An ended stage is not run again, an interrupted one
resumes, and a row of other conditions is refused. Variants may run at the same time, each in a call of its
own with the same OUTPUT; the tables have the rows so far.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.manifest import file_record
from cllm4rec.files.writing import write_text
from experiments.backbone_rows import Row
from experiments.backbone_tables import tables
from experiments.commands import argument_parser
from experiments.random_backbone import save_random_backbone
from experiments.report import METRICS_FILE, USERS_FILE

# Name -> flags of pretrain beside `--backbone`; tiny is built in. No variant has a linear path: what the
# backbone is worth would be hidden by it.
ALONE = ["--linear", "none"]
VARIANTS = {
    "tiny": ALONE,
    "frozen": ["--tune", "frozen", *ALONE],
    "lora": ["--tune", "lora", *ALONE],
    "random": ["--tune", "frozen", *ALONE],
}
# Of the variants with a large backbone. Small batches give more steps, and the cost of an epoch does not
# depend on the batch size.
PRETRAIN = ["--epochs", "8", "--batch-size", "16", "--learning-rate", "1e-3"]
FINETUNE = ["--epochs", "100", "--batch-size", "16", "--learning-rate", "3e-4"]
QUICK = ["--epochs", "1"]  # with --quick, of both stages and every variant
MAX_MINUTES = (15.0, 25.0)  # of pretraining and finetuning
SEED_FOLDER = "seed0"


def stage_flags(variant: str, max_minutes: tuple[float, float], quick: bool) -> dict[str, list[str]]:
    """Flags of the two training stages, without folders."""
    of_variant = {"pretrain": PRETRAIN, "finetune": FINETUNE}
    flags = {}
    for (stage, settings), minutes in zip(of_variant.items(), max_minutes, strict=True):
        chosen = [] if variant == "tiny" else settings
        if quick:
            chosen = [*chosen, *QUICK]
        flags[stage] = [*chosen, "--max-minutes", f"{minutes:g}", "--seed", "0"]
    flags["pretrain"] = [*VARIANTS[variant], *flags["pretrain"]]
    return flags


def conditions(
    variant: str, data: Path, backbone: dict[str, str], flags: dict[str, list[str]]
) -> dict[str, Any]:
    """What a row is measured under; rows of other conditions are refused."""
    return {
        "dataset": asdict(Dataset.load(data / SEED_FOLDER).hashes),
        "backbone": None if variant == "tiny" else backbone,
        "pretrain": " ".join(flags["pretrain"]),
        "finetune": " ".join(flags["finetune"]),
        "precision": os.environ.get("ACCELERATE_MIXED_PRECISION"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def run_variant(row: Row, variant: str, backbone: Path, data: Path, flags: dict[str, list[str]]) -> None:
    """Train and evaluate a variant. Ended stages are left as they are."""
    output = row.file.parent
    run, model = output / variant, "tiny" if variant == "tiny" else str(backbone)
    if variant == "random":
        model = str(save_random_backbone(backbone, output / "random-weights", seed=0))
    places = ["--dataset", data / SEED_FOLDER, "--output", run, "--backbone", model]
    row.run_stage("pretrain", *places, *flags["pretrain"], "--resume")
    row.run_stage("finetune", "--run", run, *flags["finetune"], "--resume")
    row.run_stage("evaluate", "--run", run, "--json", run / METRICS_FILE, "--per-user", run / USERS_FILE)


def main(
    backbone: Path,
    data: Path,
    output: Path,
    variants: list[str],
    max_minutes: tuple[float, float],
    quick: bool,
) -> None:
    if not (data / SEED_FOLDER).is_dir():
        raise SystemExit(f"error: {data} has no folder {SEED_FOLDER}: experiments.recipes makes it")
    if not (backbone / "config.json").is_file():
        raise SystemExit(f"error: --backbone {backbone} is not the folder of a model (no config.json)")
    files = sorted(file for file in backbone.iterdir() if file.suffix in (".json", ".safetensors"))
    hashes = {file.name: file_record(file).sha256 for file in files}
    output.mkdir(parents=True, exist_ok=True)
    flags = {variant: stage_flags(variant, max_minutes, quick) for variant in VARIANTS}
    rows = {  # all are compared before hours are spent on one of them
        variant: Row.begin(output / f"{variant}.json", conditions(variant, data, hashes, flags[variant]))
        for variant in VARIANTS
    }
    for variant in variants:
        run_variant(rows[variant], variant, backbone, data, flags[variant])
    # other calls may have written rows meanwhile
    ended = [name for name, row in rows.items() if row.file.is_file() and Row.read(row.file).is_complete]
    text = tables({name: (output / name, Row.read(rows[name].file)) for name in ended})
    write_text(output / "tables.md", text + "\n")
    say(f"\n{data.resolve().name}, protocol A, seed 0, test events:\n\n{text}")


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a pretrained model")
    parser.add_argument("--data", type=Path, required=True, help="folder that a recipe wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs, rows and tables.md")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="to run, in this order"
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        nargs=2,
        default=MAX_MINUTES,
        metavar=("PRETRAIN", "FINETUNE"),
        help="limit of each stage of a variant (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="an epoch of each stage, to try the command")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    main(**vars(arguments) | {"max_minutes": tuple(arguments.max_minutes)})
