"""What pretrain and finetune share: running a stage into a run folder, stopping and going on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import Accelerator

from cllm4rec.commands.entry import log, say
from cllm4rec.commands.failures import LostProcessError, lost_process
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.folders import check_folder
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import default_precision
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import Progress, ResumeFile, Stopped
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder


def open_run(accelerator: Accelerator, output: str, **about: Any) -> RunFolder:
    """Make the run folder on the main process; the others wait for it."""
    RunFolder.check_new(output)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        RunFolder.create(output, **about)
    accelerator.wait_for_everyone()
    return RunFolder(Path(output))


class StopRequest:
    """Ctrl-C and SIGTERM ask training to stop after the step at hand; a second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.asked = 0.0

    def __call__(self) -> bool:
        return self.signal is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if (
            number == signal.SIGINT and self.signal is not None and now - self.asked > 1
        ):  # a launcher may send it twice
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.asked = signal.Signals(number), now
            log.info("stopping after this step (a second Ctrl-C: at once)")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Records:
    """Writes down how a stage goes, on the main process: each epoch's line, the best weights."""

    def __init__(
        self, model: NeuralRecommender, stage: str, folder: RunFolder, settings: StageSettings, epoch: int
    ) -> None:
        self.model, self.stage, self.folder, self.settings = model, stage, folder, settings
        self.begun = epoch > 0  # what an earlier try left stays until there are new weights
        self.saved = False  # whether this process wrote the folder whole
        if self.begun:
            folder.forget(stage, epoch)  # lines that the state does not know of

    def on_epoch(self, record: EpochRecord) -> None:
        self.folder.record(self.stage, record)
        log.info("%s %s", self.stage, record)

    def on_best(self) -> None:
        if not self.begun:
            self.folder.begin_stage(self.stage, self.settings)
        if self.saved and self.folder.has_weights(self.stage):
            self.model.save_weights(self.folder.path / self.stage)
        else:
            self.model.save(self.folder.path / self.stage)
        self.begun = self.saved = True

    def refused(self, resume_file: ResumeFile) -> None:
        """The run was refused. If no epoch had finished, leave the earlier run untouched."""
        if not (self.begun or resume_file.path.is_file()):
            self.folder.withdraw(self.stage)


def _say_how_it_begins(stage: str, dataset: Dataset, progress: Progress | None) -> None:
    if progress is not None:
        log.info("%s goes on in epoch %d, after step %d", stage, progress.epoch, progress.step)
    elif not len(dataset.validation.interactions):
        log.info("the dataset has no validation events: %s keeps the weights of its last epoch", stage)


def dry_run_stage(
    model: NeuralRecommender, stage: str, dataset: Dataset, training: TrainConfig, accelerator: Accelerator
) -> None:
    """Say what a stage would take."""
    found = model.dry_run(dataset.train, dataset.validation, training, stage, accelerator, dataset.seen)
    if accelerator.is_main_process:
        n_events = len(dataset.train.interactions)
        say(
            f"{model.name}, {stage}: {dataset.n_users:,} users, {dataset.n_items:,} items, {n_events:,} training events"
        )
        say(str(found))


def _progress(resume_file: ResumeFile, precision: str) -> Progress:
    """The progress of the stage so far.

    Raises:
        ValueError: it began in another precision.
    """
    description = resume_file.describe()
    if description is None:
        return Progress()
    before = description.about.get("precision")
    if before != precision:
        raise ValueError(
            f"{resume_file.path}: training began in precision {before}, not {precision}: set "
            f"ACCELERATE_MIXED_PRECISION={before}"
        )
    return description.progress


def _precision_set(precision: str) -> str:
    """What goes before a command for it to run in a precision: nothing where it does by itself."""
    return "" if precision == default_precision() else f"ACCELERATE_MIXED_PRECISION={precision} "


@contextmanager
def _lost_processes(how_to_resume: str) -> Iterator[None]:
    """Where other processes are waited for: if one of them has ended, say how training goes on."""
    try:
        yield
    except Exception as error:
        if not lost_process(error):
            raise
        kept = "what was saved last is kept"
        raise LostProcessError(
            f"another process of this training has ended; {kept}; go on with: {how_to_resume}"
        ) from error


def run_stage(
    model: NeuralRecommender,
    stage: str,
    dataset: Dataset,
    training: TrainConfig,
    folder: RunFolder,
    accelerator: Accelerator,
    how_to_resume: str,
) -> None:
    """Train one stage, or go on with it where it was interrupted; the main process writes into the run folder.

    Raises:
        SystemExit: training was stopped by a signal, with the status that is usual for it.
        ValueError: it began in another precision.
    """
    settings = StageSettings(asdict(model.config), asdict(training), accelerator.mixed_precision)
    events = (dataset.train, dataset.validation)
    resume_file, request = folder.resume_file(stage, settings.as_json()), StopRequest()
    progress = _progress(resume_file, accelerator.mixed_precision)
    accelerator.wait_for_everyone()
    hooks = Hooks(should_stop=request)
    if main := accelerator.is_main_process:
        check_folder(folder.path / stage, "model.json")  # before the time is spent
        folder.announce(stage, settings)
        trained_with = replace(settings, n_processes=accelerator.num_processes)
        records = _Records(model, stage, folder, trained_with, progress.epoch)
        hooks = Hooks(records.on_epoch, records.on_best, request)
        resumed = resume_file.path.is_file()
        _say_how_it_begins(stage, dataset, progress if resumed else None)
    end = ""
    try:
        with (
            request.listening(),
            _lost_processes(_precision_set(accelerator.mixed_precision) + how_to_resume),
        ):
            model.fit(*events, training, stage, hooks, accelerator, resume_file, seen=dataset.seen)
    except ValueError:
        if main:
            records.refused(resume_file)
        raise
    except Stopped as stopped:
        end = f"stopped {stopped}; all of it is saved"
        raise SystemExit(128 + (request.signal or signal.SIGTERM)) from None
    except KeyboardInterrupt:
        end = "stopped at once; what was saved last is kept"
        raise
    finally:
        if main and end:
            log.info("%s; go on with: %s%s", end, _precision_set(accelerator.mixed_precision), how_to_resume)
    accelerator.wait_for_everyone()
    if main:
        if resumed:
            records.on_best()  # whatever became of the folder meanwhile, it holds the best weights now
        folder.end_stage(stage)
        log.info("the run is in %s", folder.path)
