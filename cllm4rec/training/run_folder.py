"""A run folder explains itself: what was run, on which data, with which versions, how it went, and its weights.

run.json         system, configuration, seed, versions, dataset and its hashes, format_version; unfinished stages
metrics.jsonl    one line an epoch: stage, loss terms, gradient norms, validation metric, time
pretrain/ ...    one folder a stage that was run: the best weights (safetensors), ids, configuration, a manifest of hashes
pretrain-state.safetensors ...    of an unfinished stage: all it needs to resume
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import recover_folder
from cllm4rec.files.locks import check_parents, locked, remove_leftovers
from cllm4rec.files.manifest import MANIFEST, check_manifest, file_record
from cllm4rec.files.temporary import is_temporary
from cllm4rec.files.writing import write_text
from cllm4rec.training.run_description import FORMAT_VERSION, parse_metrics, read_description, signed_text

if TYPE_CHECKING:  # opening a run takes none of the libraries that train
    from cllm4rec.training.progress import EpochRecord
    from cllm4rec.training.resume import ResumeFile

STAGES = ("pretrain", "finetune")
VERSIONS_OF = ("torch", "transformers", "accelerate", "numpy", "scipy", "polars")
MARKER, METRICS = "run.json", "metrics.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @classmethod
    def create(
        cls, path: str | Path, system: str, dataset: Dataset, dataset_path: str | Path, **about: Any
    ) -> "RunFolder":
        """Start a run.

        Args:
            path: its folder, as `check_new` wants it.
            about: further keys of run.json: `preset`; `under_way`, stage -> settings of the stage that begins.

        Raises:
            ValueError: the folder is not empty, or cannot be written.
        """
        cls.check_new(path)
        run = cls(Path(path))
        description = {
            "format_version": FORMAT_VERSION,
            "system": system,
            "preset": None,
            "dataset": {
                "path": os.path.realpath(dataset_path),
                **asdict(dataset.hashes),
            },
            "versions": {
                "cllm4rec": importlib.metadata.version("cllm4rec"),
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
            },
            "stages": {},
            "under_way": {},
            **about,
        }
        run.path.mkdir(parents=True, exist_ok=True)
        run._write(description)
        return run

    @classmethod
    def check_new(cls, path: str | Path) -> None:
        """Raise ValueError unless the folder is new, empty, or a run without an ended or interrupted stage."""
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
        """Hold the lock of a run folder while a stage is trained. What a killed process left there is removed.

        Raises:
            ValueError: another process trains in this folder; the message names it.
        """
        folder = Path(os.path.realpath(path))
        with locked(folder / MARKER, name=folder):  # in the folder: its parent need not be writable
            for name in (MARKER, METRICS, *STAGES, *map(cls._state_name, STAGES)):
                remove_leftovers(folder / name)
            yield

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """A run that exists.

        Raises:
            ValueError: there is none, it is damaged, or it has another format version.
        """
        run = cls(Path(path))
        if not run._file.is_file():
            raise ValueError(f"{path} is not a run folder (no {MARKER}): make one with cllm4rec.pretrain")
        run.about  # noqa: B018 - the file is checked
        return run

    @property
    def _file(self) -> Path:
        return self.path / MARKER

    @property
    def about(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            ValueError: it is damaged, or of another format version.
        """
        return read_description(self._file)

    def _write(self, about: dict[str, Any]) -> None:
        write_text(self._file, signed_text(about))

    def under_way(self, stage: str) -> dict[str, Any] | None:
        """The settings of an unfinished stage; None if there is none."""
        settings: dict[str, Any] | None = self.about["under_way"].get(stage)
        return settings

    def ended(self, stage: str) -> bool:
        """Whether a stage was trained to its end."""
        return stage in self.about["stages"] and self.under_way(stage) is None and self.has_weights(stage)

    def announce(self, stage: str, settings: dict[str, Any]) -> None:
        """Note that a stage begins; the settings of an earlier try stay noted until there are new weights."""
        about = self.about
        self._write(about | {"under_way": about["under_way"] | {stage: settings}})

    def end_stage(self, stage: str) -> None:
        """Check the weights of a stage whole, and note that it has ended: its state is not needed any more.

        Raises:
            ValueError: the weights on disk are not those that were written.
        """
        resumable = self._state_file(stage).is_file()
        with reading(self.path / stage, "write it again with --resume" if resumable else "train again"):
            check_manifest(self.path / stage, whole=True)
            sha256 = file_record(self.path / stage / MANIFEST).sha256
        about = self.about
        about["stages"][stage]["manifest_sha256"] = sha256
        self._write(about)
        self.withdraw(stage)
        self.state(stage).remove()

    def withdraw(self, stage: str) -> None:
        """Note that a stage is not under way any more."""
        about = self.about
        unfinished = {name: settings for name, settings in about["under_way"].items() if name != stage}
        self._write(about | {"under_way": unfinished})

    def has_weights(self, stage: str) -> bool:
        """Whether there are weights of a stage."""
        recover_folder(self.path / stage)
        return (self.path / stage / "model.json").is_file()

    def begin_stage(self, stage: str, **settings: Any) -> None:
        """Note how a stage is trained; the lines of an earlier try of that stage leave the metrics."""
        about = self.about
        about["stages"][stage] = settings
        self._write(about)
        self.forget(stage, 0)

    def forget(self, stage: str, epoch: int) -> None:
        """Remove the lines of a stage from an epoch on."""
        self._write_metrics(
            [line for line in self.metrics() if line["stage"] != stage or line["epoch"] < epoch]
        )

    def record(self, stage: str, epoch: "EpochRecord") -> None:
        """Add a line to the metrics."""
        self._write_metrics([*self.metrics(), {"stage": stage, **asdict(epoch)}])

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in lines))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl.

        Raises:
            ValueError: the file is damaged.
        """
        file = self.path / METRICS
        if not file.is_file():
            return []
        with reading(file, "remove it; only the record of the epochs is lost"):
            return parse_metrics(file.read_text(encoding="utf-8"))

    def state(self, stage: str, about: dict[str, Any] | None = None) -> "ResumeFile":
        """The state file of an unfinished stage; `about`: the settings that a resumed training has to share."""
        from cllm4rec.training.resume import ResumeFile

        return ResumeFile(self._state_file(stage), about or {})

    @staticmethod
    def _state_name(stage: str) -> str:
        return f"{stage}-state.safetensors"

    def _state_file(self, stage: str) -> Path:
        return self.path / self._state_name(stage)

    def refuse_interrupted(self, stage: str) -> None:
        """Raise ValueError if a stage has a saved state: it is not to be lost by starting anew.

        The state of an ended stage, left by a process that was killed in its last moment, does not count."""
        if (file := self._state_file(stage)).is_file() and not self.ended(stage):
            raise ValueError(
                f"{self.path} holds an interrupted {stage}: go on with --resume, or remove {file.name} to start it anew"
            )

    def stage_folder(self, stage: str | None = None) -> Path:
        """Folder of a stage's weights; of the last stage that has any, if not given.

        Raises:
            ValueError: there are no weights, or those of a stage that has ended are missing.
        """
        about = self.about
        for name in reversed(STAGES) if stage is None else [stage]:
            if self.has_weights(name):
                return self.path / name
            if name in about["stages"] and name not in about["under_way"]:
                raise ValueError(
                    f"{self.path / name} is missing or holds no model.json: train this stage again"
                )
        raise ValueError(
            f"{self.path} holds no weights{f' of {stage}' if stage else ''} yet: pretrain it to its first epoch"
        )

    def check_stage(self, stage: str) -> None:
        """Raise ValueError unless the folder of an ended stage is the one that was trained in this run."""
        while True:
            about = self.about
            noted = about["stages"].get(stage, {}).get("manifest_sha256")
            manifest = self.path / stage / MANIFEST
            if noted is None or (manifest.is_file() and file_record(manifest).sha256 == noted):
                return
            if self.about == about:  # else the stage is being trained again
                raise ValueError(
                    f"{self.path / stage} is not the one that this run trained: train this stage again"
                )

    def dataset(self, path: str | Path | None = None) -> Dataset:
        """The dataset of the run, or the same at another place.

        Raises:
            ValueError: it is not there, or it is not the one the run was trained on.
        """
        noted = self.about["dataset"]
        if path is None and not (Path(noted["path"]) / "dataset.json").is_file():
            raise ValueError(
                f"the run's dataset was in {noted['path']} and is not there: say where with --dataset"
            )
        dataset = Dataset.load(path or noted["path"])
        for what, sha256 in asdict(dataset.hashes).items():
            if sha256 != noted[what]:
                raise ValueError(
                    f"{path or noted['path']}: {what} differs from that of the run: the dataset was prepared anew since; "
                    "train again, or give the old one with --dataset"
                )
        return dataset
