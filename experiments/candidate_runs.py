"""Runs of `experiments.candidates`: what is trained for each row, and how it is measured."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cllm4rec.files.folders import replace_folder
from cllm4rec.files.locks import locked
from cllm4rec.files.manifest import file_record
from cllm4rec.files.writing import write_text
from cllm4rec.models.language.loading import check_backbone
from cllm4rec.models.rsllm.config import ONE_EPOCH, RSLLMConfig
from cllm4rec.training.run_folder import RunFolder
from experiments.candidate_folds import VALIDATION_TARGETS
from experiments.commands import run_command
from experiments.json_files import read_object
from experiments.models import described_model

REFERENCE, SEQUENTIAL, STAGE_1, UNTRAINED = "RSLLM", "sequential system", "stage-1", "untrained"
UNIFIED_ALONE = "RSLLM, unified prompts, language model alone"
FORMS = {  # run -> flags of finetune; all continue the run of stage 1
    "unified": ["--prompt", "unified"],
    "text": ["--prompt", "text"],
    "ids": ["--prompt", "ids"],
    "no-c-item": ["--prompt", "text", "--alpha", "0"],
}
BASE = "sequential"  # stands for the run of the system whose item vectors RSLLM has
SYSTEMS = {  # run -> flags of pretrain, of sequential systems
    "sasrec-ids": ["--system", "sasrec"],
    "sasrec-texts": ["--system", "sasrec", "--item-text", "words"],
    "bsarec-ids": ["--system", "bsarec"],
    "bsarec-texts": ["--system", "bsarec", "--item-text", "words"],
}
BATCH = 4  # users; some 900 of them are few steps in larger ones
OF_RSLLM = {  # settings
    "history length": RSLLMConfig().length,
    "batch size": BATCH,
    "learning rate schedule": ONE_EPOCH["schedule"],
}
PLAN_FILE = "plan.json"
LOCK_SECONDS = 60.0  # in which another call writes its settings
ROWS = {  # name -> run, --by of evaluate
    SEQUENTIAL: (BASE, "scores"),
    "SASRec, ids": ("sasrec-ids", "scores"),
    "SASRec, texts": ("sasrec-texts", "scores"),
    "BSARec, ids": ("bsarec-ids", "scores"),
    "BSARec, texts": ("bsarec-texts", "scores"),
    REFERENCE: ("text", "scores"),
    "RSLLM, unified prompts": ("unified", "scores"),
    "RSLLM, soft tokens": ("ids", "scores"),
    "RSLLM, no C_item": ("no-c-item", "scores"),
    "RSLLM, language model alone": ("text", "language"),
    UNIFIED_ALONE: ("unified", "language"),
    "RSLLM, soft tokens, language model alone": ("ids", "language"),
    "RSLLM, unified prompts, likelihood of titles": ("unified", "likelihood"),
    "RSLLM, unified prompts, free generation": ("unified", "generation"),
    "RSLLM, unified prompts, constrained generation": ("unified", "constrained"),
    "backbone before training, likelihood of titles": (UNTRAINED, "likelihood"),
}
IN_WORDS = ("likelihood", "generation", "constrained")


@dataclass(frozen=True)
class Plan:
    """How the systems are trained and measured.

    Attributes:
        sequential: runs of SYSTEMS; RSLLM has the item vectors of the one that is best on validation events.
        backbone: of RSLLM.
        candidates, draws: of each row.
        epochs: of stage 1, and at most of stage 2.
        rows: to measure.
    """

    sequential: Sequence[str]
    backbone: str
    candidates: int
    draws: int
    epochs: tuple[int, int]
    rows: Sequence[str]

    @property
    def names_candidates(self) -> bool:
        """Whether prompts name the candidates."""
        return any(ROWS[name][1] in IN_WORDS for name in self.rows)

    @property
    def runs(self) -> set[str]:
        """The runs that the rows need."""
        return {ROWS[name][0] for name in self.rows}

    @property
    def trains_rsllm(self) -> bool:
        return bool(self.runs - {BASE, *SYSTEMS})

    @property
    def reads_base(self) -> bool:
        """Whether a row is of the base, or built on it."""
        return self.trains_rsllm or BASE in self.runs

    @property
    def bases(self) -> list[str]:
        """The runs of `sequential` in the order of SYSTEMS, each once."""
        return [run for run in SYSTEMS if run in self.sequential]

    def check(self) -> None:
        """Refuse what would fail after the sequential system has been trained.

        Raises:
            SystemExit: there are fewer than two candidates, no draw, or less than no epoch.
            ValueError: the backbone cannot be loaded.
        """
        for flag, value, least in (
            ("--candidates", self.candidates, 2),
            ("--draws", self.draws, 1),
            ("--epochs", min(self.epochs), 0),
        ):
            if value < least:
                raise SystemExit(f"error: {flag} {value}: give at least {least}")
        if self.trains_rsllm:
            check_backbone(RSLLMConfig(backbone=self.backbone))

    def settings(self, tables: Mapping[str, Path], folds: int, seed: int) -> dict[str, object]:
        """What the results of one folder have in common, as JSON holds it.

        Rows may differ. Those of named sequential systems alone have no settings of RSLLM and of its base.

        Args:
            tables: flag -> file, which is hashed.
            folds: number of folds.
            seed: of the training of folds.

        Raises:
            SystemExit: a table is missing.
        """
        for flag, file in tables.items():
            if not file.is_file():
                raise SystemExit(f"error: {flag} {file}: there is no such file")
        settings: dict[str, object] = {"candidates": self.candidates, "draws": self.draws, "folds": folds}
        if folds:
            settings |= {"seed": seed, "targets for validation": VALIDATION_TARGETS}
        if self.reads_base:
            settings["sequential"] = ", ".join(self.bases)
        settings |= {flag: file_record(file).sha256 for flag, file in tables.items()}
        if self.trains_rsllm:
            settings |= {"epochs": self.epochs, "backbone": described_model(self.backbone)}
            settings |= OF_RSLLM
            settings["form of RSLLM's prompts"] = (
                f"{'with' if self.names_candidates else 'without'} candidates"
            )
        held: dict[str, object] = json.loads(json.dumps(settings))
        return held


def check_settings(settings: Mapping[str, object], output: Path) -> None:
    """Refuse results of other settings than those of OUTPUT/plan.json.

    Raises:
        SystemExit: one of the settings differs, or the file is damaged.
    """
    before = read_object(output / PLAN_FILE)
    if "epochs" in before:  # rows of RSLLM; earlier versions trained them otherwise, and did not record it
        before = dict.fromkeys(OF_RSLLM, "not recorded") | before
    for name, value in settings.items():
        if (recorded := before.get(name, value)) != value:
            raise SystemExit(
                f"error: {output} has results with another {name}: {recorded}, not {value}; give "
                "another --output"
            )


def write_settings(settings: Mapping[str, object], output: Path) -> None:
    """Write OUTPUT/plan.json; settings of other rows stay.

    Raises:
        SystemExit: as in `check_settings`, of what another call wrote meanwhile.
    """
    file = (output / PLAN_FILE).resolve()
    with locked(file, wait=LOCK_SECONDS):
        check_settings(settings, output)
        write_text(file, json.dumps(read_object(output / PLAN_FILE) | dict(settings), indent=2) + "\n")


@dataclass(frozen=True)
class Part:
    """A training seed or a fold.

    Attributes:
        name: of its folder.
        dataset: folder of the dataset.
        seed: of training.
    """

    name: str
    dataset: Path
    seed: int


def train(part: Part, parent: Path, plan: Plan) -> None:
    """Train what the rows need: sequential systems, and RSLLM on the embeddings of one of them."""
    seeded = ["--seed", part.seed, "--resume"]
    systems = plan.runs & {*SYSTEMS}
    if plan.reads_base:
        systems |= {*plan.bases}
    for run, flags in SYSTEMS.items():
        if run in systems:
            run_command("pretrain", *flags, "--dataset", part.dataset, "--output", parent / run, *seeded)
    if plan.trains_rsllm:
        _train_rsllm(part.dataset, parent, plan, seeded)


def _train_rsllm(dataset: Path, parent: Path, plan: Plan, seeded: Sequence[object]) -> None:
    """Train the runs of RSLLM; `seeded` are the flags that both stages have."""
    settings = ["--system", "rsllm", "--sequential", parent / base_of(parent, plan)]
    settings += ["--backbone", plan.backbone, "--dataset", dataset]
    if plan.names_candidates:
        settings += ["--candidates", plan.candidates]
    if UNTRAINED in plan.runs:
        untrained = ["--output", parent / UNTRAINED, "--prompt", "text", "--epochs", 0]
        run_command("pretrain", *settings, *untrained, *seeded)
    if plan.runs & {*FORMS}:
        stage_1 = parent / STAGE_1
        training = ["--epochs", plan.epochs[0], "--batch-size", BATCH]
        run_command("pretrain", *settings, "--output", stage_1, *training, *seeded)
    for form, flags in FORMS.items():
        if form not in plan.runs:
            continue
        if not (parent / form).is_dir():
            with replace_folder(parent / form, "run.json") as new:
                shutil.copytree(stage_1, new, dirs_exist_ok=True)
        training = ["--epochs", plan.epochs[1], "--batch-size", BATCH]
        run_command("finetune", "--run", parent / form, *flags, *training, *seeded)


def base_of(parent: Path, plan: Plan) -> str:
    """The run of the sequential system of RSLLM; of equal validation metrics the first.

    Raises:
        SystemExit: there are several to choose from, and no validation events.
    """
    if len(plan.bases) == 1:
        return plan.bases[0]
    quality = {run: best_validation(parent / run) for run in plan.bases}
    if None in quality.values():
        raise SystemExit("error: without validation rows no system is the best: name one --sequential")
    return max(quality, key=lambda run: quality[run] or 0.0)


def is_trained(run: Path) -> bool:
    """Whether the first stage of a run was trained to its end; another call may be training it."""
    return (run / "run.json").is_file() and RunFolder.open(run).ended("pretrain")


def best_validation(run: Path) -> float | None:
    """The best validation metric of a run; None without validation events."""
    values = [line.validation for line in RunFolder.open(run).metrics() if line.validation is not None]
    return max(values, default=None)


def values_file(name: str) -> str:
    """The file of a row's metrics in the folder of a part."""
    return "-".join(ROWS[name]) + ".parquet"


def evaluate(parent: Path, name: str, plan: Plan) -> None:
    """Measure a row of the table, unless its file exists: a row per test row."""
    values = parent / values_file(name)
    if not values.is_file():
        run, by = ROWS[name]
        if run == BASE:
            run = base_of(parent, plan)
        protocol = ("--candidates", plan.candidates, "--draws", plan.draws, "--by", by)
        files = ("--json", values.with_suffix(".json"), "--per-user", values)
        run_command("evaluate", "--run", parent / run, *protocol, *files)


def measured(output: Path) -> dict[str, dict[str, pl.DataFrame]]:
    """Row -> part -> metrics (a row per test row), of all that has been measured, in the order of ROWS."""
    parts = [path.name for path in output.iterdir() if re.fullmatch(r"(fold|seed)\d+", path.name)]
    found = {
        name: {
            part: pl.read_parquet(file)
            for part in sorted(parts, key=lambda part: int(part[4:]))
            if (file := output / part / values_file(name)).is_file()
        }
        for name in ROWS
    }
    return {name: of_parts for name, of_parts in found.items() if of_parts}
