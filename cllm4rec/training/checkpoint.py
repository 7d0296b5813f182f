"""A run folder explains itself: what was run, on which data, with which versions, how it went, and its weights.

run.json         system, configuration, seed, versions, dataset and its hashes, format_version; which stages are under way
metrics.jsonl    one line an epoch: stage, loss terms, gradient norms, validation metric, time
pretrain/ ...    one folder a stage that was run: the best weights (safetensors), ids, configuration
pretrain-state.safetensors ...    while a stage runs, or was stopped: all it needs to go on
"""

import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.files import check_above, mend_folder, replace_folder, write_aside, write_text

if TYPE_CHECKING:  # opening a run takes none of the libraries that train
    from cllm4rec.training.meter import EpochRecord
    from cllm4rec.training.state import StateFile

FORMAT_VERSION = 2
STAGES = ("pretrain", "finetune")
VERSIONS_OF = ("torch", "transformers", "accelerate", "numpy", "scipy", "polars")


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @classmethod
    def create(cls, path: str | Path, system: str, dataset: Dataset, dataset_path: str | Path, **about: Any) -> "RunFolder":
        """Start a run.

        Args:
            path: its folder, as `check_new` wants it.
            about: further things to note; `under_way`: stage -> settings of what begins now.

        Raises:
            ValueError: the folder holds something.
        """
        path = Path(path)
        cls.check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run._write(
            {
                "format_version": FORMAT_VERSION,
                "system": system,
                "dataset": {
                    "path": str(Path(dataset_path).resolve()),
                    "data_sha256": dataset.about.get("data_sha256", dataset.fingerprint),
                    "split_sha256": dataset.about.get("split_sha256", dataset.split_fingerprint),
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
        )
        return run

    @classmethod
    def check_new(cls, path: str | Path) -> None:
        """Raise ValueError unless the folder is new, empty, or a run of which no stage has ended or was interrupted, so that
        nothing is lost."""
        path, run = Path(path), cls(Path(path))
        if path.is_dir():
            for stage in STAGES:
                run.refuse_interrupted(stage)
        is_run = (path / "run.json").is_file()
        ended = is_run and any(run.ended(stage) for stage in STAGES)
        check_above(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file, not a folder: name another one")
        if path.exists() and (ended or (any(path.iterdir()) and not is_run)):
            raise ValueError(f"{path} exists and is not empty: name a new folder, or remove it first")

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """A run that exists.

        Raises:
            ValueError: there is none, or it has another format version.
        """
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise ValueError(f"{path} is not a run folder (no run.json): make one with cllm4rec.pretrain")
        version = run.about.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path}/run.json: format_version {version!r} is unknown to this version of cllm4rec, which reads "
                f"{FORMAT_VERSION}: use the version that wrote it, or train again"
            )
        return run

    @property
    def about(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / "run.json").read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.path}/run.json is damaged ({error}): train again") from error

    def _write(self, about: dict[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(about, indent=2) + "\n")

    def under_way(self, stage: str) -> dict[str, Any] | None:
        """The settings of a stage that was begun and has not ended; None if there is no such stage."""
        settings: dict[str, Any] | None = self.about.get("under_way", {}).get(stage)
        return settings

    def ended(self, stage: str) -> bool:
        """Whether a stage was trained to its end."""
        return stage in self.about["stages"] and self.under_way(stage) is None and self._has_weights(stage)

    def announce(self, stage: str, settings: dict[str, Any]) -> None:
        """Note that a stage begins; those of an earlier try stay noted until there are new weights."""
        about = self.about
        self._write(about | {"under_way": about.get("under_way", {}) | {stage: settings}})

    def end_stage(self, stage: str) -> None:
        """Note that a stage has ended: its state is not needed any more."""
        self.withdraw(stage)
        self.state(stage).remove()

    def withdraw(self, stage: str) -> None:
        """Note that a stage is not under way any more."""
        about = self.about
        self._write(about | {"under_way": {name: one for name, one in about["under_way"].items() if name != stage}})

    def _has_weights(self, stage: str) -> bool:
        mend_folder(self.path / stage)
        return (self.path / stage / "model.json").is_file()

    def begin_stage(self, stage: str, **settings: Any) -> None:
        """Note how a stage is trained; lines of an earlier try of that stage leave the metrics."""
        about = self.about
        about["stages"][stage] = settings
        self._write(about)
        self.forget(stage, 0)

    def forget(self, stage: str, epoch: int) -> None:
        """Take the lines of a stage from an epoch on out of the metrics."""
        self._write_metrics([line for line in self.metrics() if line["stage"] != stage or line["epoch"] < epoch])

    def record(self, stage: str, epoch: "EpochRecord") -> None:
        """Add a line to the metrics."""
        self._write_metrics([*self.metrics(), {"stage": stage, **asdict(epoch)}])

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def state(self, stage: str, about: dict[str, Any] | None = None) -> "StateFile":
        """Where the state of a stage is while it has not ended; `about`: what is trained how."""
        from cllm4rec.training.state import StateFile

        return StateFile(self._state_file(stage), about or {})

    def _state_file(self, stage: str) -> Path:
        return self.path / f"{stage}-state.safetensors"

    def refuse_interrupted(self, stage: str) -> None:
        """Raise ValueError if a stage has a saved state: it is not to be lost by starting anew.

        That of a stage that has ended, left by a process killed in its last moment, does not count."""
        if (file := self._state_file(stage)).is_file() and not self.ended(stage):
            raise ValueError(
                f"{self.path} holds an interrupted {stage}: go on with --resume, or remove {file.name} to start it anew"
            )

    def keep(self, stage: str, save: Callable[[Path], None]) -> None:
        """Write a stage's folder, in the place of an earlier one."""
        with replace_folder(self.path / stage, marker="model.json") as new:
            save(new)

    def keep_weights(self, stage: str, save: Callable[[Path], None]) -> None:
        """Write the weights alone anew, into the folder that `keep` made."""
        with write_aside(self.path / stage / "model.safetensors") as aside:
            save(aside)

    def stage_folder(self, stage: str | None = None) -> Path:
        """Folder of a stage's weights; of the last stage that has any, if not given.

        Raises:
            ValueError: there are no weights.
        """
        for name in reversed(STAGES) if stage is None else [stage]:
            if self._has_weights(name):
                return self.path / name
        raise ValueError(f"{self.path} holds no weights{f' of {stage}' if stage else ''} yet: pretrain it to its first epoch")

    def dataset(self, path: str | Path | None = None) -> Dataset:
        """The dataset of the run, or the same at another place.

        Raises:
            ValueError: it is not there, or it is not the one the run was trained on.
        """
        noted = self.about["dataset"]
        if path is None and not (Path(noted["path"]) / "dataset.json").is_file():
            raise ValueError(f"the run's dataset was in {noted['path']} and is not there: say where with --dataset")
        dataset = Dataset.load(path or noted["path"])
        for what in ("data_sha256", "split_sha256"):
            if dataset.about[what] != noted[what]:
                raise ValueError(
                    f"{path or noted['path']}: {what} differs from that of the run: the dataset was prepared anew since; "
                    "train again, or give the old one with --dataset"
                )
        return dataset
