"""A run folder: what was run, on which data, with which versions, its metrics and its weights.

run.json         system, settings, seed, versions, dataset and its hashes, format_version; unfinished stages
metrics.jsonl    one line an epoch: stage, loss terms, gradient norms, validation metric, time
pretrain/ ...    one folder a stage: the best weights (safetensors), ids, settings, a manifest of hashes
pretrain-state.safetensors ...    the resume file of an unfinished stage
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import recover_folder
from cllm4rec.files.locks import check_parents, locked, remove_leftovers
from cllm4rec.files.manifest import MANIFEST, check_manifest, file_record
from cllm4rec.files.temporary import is_temporary
from cllm4rec.files.writing import write_text
from cllm4rec.messages import quoted_if_odd
from cllm4rec.training.records import EpochRecord, MetricsLine, parse_metrics, write_metrics
from cllm4rec.training.run_description import (
    DatasetReference,
    RunDescription,
    Stage,
    StageSettings,
    new_description,
    read_description,
    signed_text,
)

if TYPE_CHECKING:  # a run is opened without the libraries that train
    from cllm4rec.training.resume import Conditions, ResumeFile

STAGES: tuple[Stage, ...] = ("pretrain", "finetune")
MARKER, METRICS = "run.json", "metrics.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        system: str,
        dataset: Dataset,
        dataset_path: str | Path,
        preset: str | None = None,
        under_way: Mapping[Stage, StageSettings] | None = None,
    ) -> "RunFolder":
        """Start a run.

        Args:
            path: its folder; `check_new` says which are allowed.
            system: name of the system.
            dataset: what it is trained on.
            dataset_path: folder of the dataset.
            preset: preset of the settings, if any.
            under_way: settings of the stage that begins.

        Raises:
            ValueError: the folder is not empty, or cannot be written.
        """
        cls.check_new(path)
        reference = DatasetReference(os.path.realpath(dataset_path), **asdict(dataset.hashes))
        run = cls(Path(path))
        run.path.mkdir(parents=True, exist_ok=True)
        run._write(new_description(system, preset, reference, under_way or {}))
        return run

    @classmethod
    def check_new(cls, path: str | Path) -> None:
        """Raise ValueError unless the folder is new, empty, or a run with no ended or interrupted stage."""
        path, run = Path(path), cls(Path(path))
        if path.is_dir():
            for stage in STAGES:
                run.refuse_interrupted(stage)
        is_run = run._file.is_file()
        ended = is_run and any(run.ended(stage) for stage in STAGES)
        check_parents(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file, not a folder: name another one")
        if path.exists() and (ended or not (is_run or all(map(is_temporary, path.iterdir())))):
            raise ValueError(f"{path} exists and is not empty: name a new folder, or remove it first")

    @classmethod
    @contextmanager
    def lock(cls, path: str | Path) -> Iterator[None]:
        """Hold the lock of a run folder while a stage is trained. Leftovers of killed processes are removed.

        Raises:
            ValueError: another process trains in this folder, or it is that of a dataset or a model.
        """
        folder = Path(os.path.realpath(path))
        for marker, kind in (("dataset.json", "dataset"), ("model.json", "model")):
            if (folder / marker).is_file():
                raise ValueError(
                    f"{path} is the folder of a {kind} ({marker}), not of a run: name another one"
                )
        with locked(folder / MARKER, name=folder):  # in the folder: its parent need not be writable
            for name in (MARKER, METRICS, *STAGES, *map(cls._resume_name, STAGES)):
                remove_leftovers(folder / name)
            yield

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open an existing run.

        Raises:
            ValueError: there is none, it is damaged, or it has another format version.
        """
        run = cls(Path(path))
        if not run._file.is_file():
            hint = "; Python's cllm4rec.load reads it" if (run.path / "model.json").is_file() else ""
            raise ValueError(
                f"{path} is not a run folder (no {MARKER}): make one with cllm4rec pretrain{hint}"
            )
        run.description  # noqa: B018 - checks the file
        return run

    @property
    def _file(self) -> Path:
        return self.path / MARKER

    @property
    def _metrics(self) -> Path:
        return self.path / METRICS

    @property
    def description(self) -> RunDescription:
        """The content of run.json, which is read and checked on each access.

        Raises:
            ValueError: it is damaged, or of another format version.
        """
        return read_description(self._file)

    def _write(self, description: RunDescription) -> None:
        write_text(self._file, signed_text(description))

    def under_way(self, stage: Stage) -> StageSettings | None:
        """The settings of an unfinished stage; None if there is none."""
        return self.description.under_way.get(stage)

    def ended(self, stage: Stage) -> bool:
        """Whether a stage was trained to its end."""
        description = self.description
        begun, unfinished = stage in description.stages, stage in description.under_way
        return begun and not unfinished and self.has_weights(stage)

    def announce(self, stage: Stage, settings: StageSettings) -> None:
        """Note that a stage begins. The settings of an earlier training stay until there are new weights."""
        description = self.description
        self._write(replace(description, under_way=description.under_way | {stage: settings}))

    def end_stage(self, stage: Stage) -> None:
        """Check the weights of a stage whole, note that it has ended, and remove its resume file.

        Raises:
            ValueError: the weights on disk are not those that were written.
        """
        resumable = self._resume_path(stage).is_file()
        remedy = f"write it again with cllm4rec.{stage} --resume" if resumable else "train again"
        with reading(self.path / stage, remedy):
            check_manifest(self.path / stage, whole=True)
            sha256 = file_record(self.path / stage / MANIFEST).sha256
        description = self.description
        settings = replace(description.stages[stage], manifest_sha256=sha256)
        self._write(replace(description, stages=description.stages | {stage: settings}))
        self.withdraw(stage)
        self.resume_file(stage).remove()

    def withdraw(self, stage: Stage) -> None:
        """Note that a stage is no longer under way."""
        unfinished = {name: each for name, each in self.description.under_way.items() if name != stage}
        self._write(replace(self.description, under_way=unfinished))

    def discard(self, stage: Stage) -> None:
        """Remove the weights of a stage and its entry; the metrics of its epochs stay."""
        self.withdraw(stage)
        others = {name: each for name, each in self.description.stages.items() if name != stage}
        self._write(replace(self.description, stages=others))
        shutil.rmtree(self.path / stage, ignore_errors=True)

    def has_weights(self, stage: Stage) -> bool:
        """Whether there are weights of a stage."""
        recover_folder(self.path / stage)
        return (self.path / stage / "model.json").is_file()

    def begin_stage(self, stage: Stage, settings: StageSettings) -> None:
        """Note how a stage is trained, and remove the metrics of an earlier training of it."""
        self._write(replace(self.description, stages=self.description.stages | {stage: settings}))
        self.forget(stage, 0)

    def forget(self, stage: Stage, epoch: int) -> None:
        """Remove the metrics of a stage from an epoch on."""
        kept = [line for line in self.metrics() if line.stage != stage or line.epoch < epoch]
        write_metrics(self._metrics, kept)

    def record(self, stage: Stage, epoch: EpochRecord) -> None:
        """Add a line to the metrics."""
        write_metrics(self._metrics, [*self.metrics(), MetricsLine.of_stage(stage, epoch)])

    def metrics(self) -> list[MetricsLine]:
        """The lines of metrics.jsonl.

        Raises:
            ValueError: the file is damaged.
        """
        with reading(self._metrics, "remove it; only the record of the epochs is lost"):
            return parse_metrics(self._metrics.read_text("utf-8")) if self._metrics.is_file() else []

    def resume_file(self, stage: Stage, conditions: "Conditions | None" = None) -> "ResumeFile":
        """The resume file of a stage; `conditions` have to match before training resumes."""
        from cllm4rec.training.resume import Conditions, ResumeFile

        return ResumeFile(self._resume_path(stage), conditions or Conditions())

    @staticmethod
    def _resume_name(stage: Stage) -> str:
        return f"{stage}-state.safetensors"

    def _resume_path(self, stage: Stage) -> Path:
        return self.path / self._resume_name(stage)

    def refuse_interrupted(self, stage: Stage) -> None:
        """Raise ValueError if a stage was interrupted: a new training would lose its resume file.

        The resume file of an ended stage, left by a process killed in its last moment, does not count.
        """
        if (file := self._resume_path(stage)).is_file() and not self.ended(stage):
            raise ValueError(
                f"{self.path} holds an interrupted {stage}: give --resume to cllm4rec {stage}, or remove "
                f"{file.name} to start it anew"
            )

    def stage_folder(self, stage: Stage | None = None) -> Path:
        """Folder of a stage's weights; without a stage, of the last that has any.

        Raises:
            ValueError: there are no weights, or those of a stage that has ended are missing.
        """
        description = self.description
        for name in reversed(STAGES) if stage is None else [stage]:
            if self.has_weights(name):
                return self.path / name
            if name in description.stages and name not in description.under_way:
                raise ValueError(
                    f"{self.path / name} is missing or holds no model.json: train this stage again"
                )
        of_stage = f" of {stage}" if stage else ""
        raise ValueError(f"{self.path} holds no weights{of_stage} yet: pretrain it to its first epoch")

    def check_stage(self, stage: Stage) -> None:
        """Raise ValueError unless the folder of an ended stage is the one that was trained in this run."""
        while True:
            description = self.description
            settings = description.stages.get(stage)
            expected = None if settings is None else settings.manifest_sha256
            manifest = self.path / stage / MANIFEST
            if expected is None or (manifest.is_file() and file_record(manifest).sha256 == expected):
                return
            if self.description == description:  # else the stage is being trained again
                raise ValueError(
                    f"{self.path / stage} is not the one that this run trained: train this stage again"
                )

    def dataset(self, path: str | Path | None = None) -> Dataset:
        """The dataset of the run.

        Args:
            path: its folder, if it has moved.

        Raises:
            ValueError: it is not there, or it is not the one the run was trained on.
        """
        reference = self.description.dataset
        if path is None and not (Path(reference.path) / "dataset.json").is_file():
            raise ValueError(
                f"the run's dataset is no longer in {quoted_if_odd(reference.path)}: say where with `dataset`"
            )
        folder = path or reference.path
        dataset = Dataset.load(folder)
        expected = asdict(reference)
        for name, sha256 in asdict(dataset.hashes).items():
            if sha256 != expected[name]:
                also = "" if path else ", or name the folder of the run's dataset with `dataset`"
                raise ValueError(
                    f"{folder} is not the dataset of the run ({name} differs): it is another one or was "
                    f"prepared anew; train again{also}"
                )
        return dataset
