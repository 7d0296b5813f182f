"""Training a stage into a run folder: signals that stop it, resuming, and what is recorded."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType

from accelerate import Accelerator

from cllm4rec.commands.entry import log, say
from cllm4rec.commands.failures import LostProcessError, lost_process
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.folders import check_folder
from cllm4rec.messages import counted
from cllm4rec.models.estimation import estimated_stage
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import default_precision, wait_for_everyone
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.progress import Progress
from cllm4rec.training.records import VALIDATION_METRIC, EpochRecord
from cllm4rec.training.resume import Conditions, DivergedError, ResumeFile, Stopped
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder


class StopRequest:
    """Ctrl-C and SIGTERM stop training after the current step; a second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.requested_at = 0.0  # seconds of the monotonic clock

    def __call__(self) -> bool:
        return self.signal is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A launcher may send the signal twice, within a second.
        if number == signal.SIGINT and self.signal is not None and now - self.requested_at > 1:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.requested_at = signal.Signals(number), now
            log.info("stopping after this step (a second Ctrl-C: at once)")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block. After the loss of another process they are ignored.

        The launcher ends the remaining processes with SIGTERM. They have yet to say how to resume.
        """
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        lost = False
        try:
            yield
        except Exception as error:
            lost = lost_process(error)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if lost else handler)


class _Records:
    """Writes the record of a stage, on the main process: a line per epoch, and the best weights."""

    def __init__(
        self,
        model: NeuralRecommender,
        stage: str,
        folder: RunFolder,
        settings: StageSettings,
        epoch: int,
    ) -> None:
        self.model, self.stage, self.folder, self.settings = model, stage, folder, settings
        # Weights of an earlier attempt stay until there are new ones.
        self.begun = epoch > 0
        # Whether this process wrote the whole folder.
        self.saved = False
        if self.begun:
            # Lines of epochs after the saved state.
            folder.forget(stage, epoch)

    def on_epoch(self, record: EpochRecord) -> None:
        self.folder.record(self.stage, record)

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

    def diverged(self, kept: bool) -> None:
        """Training diverged: the stage ends with its best weights, or leaves none without a validation."""
        if kept:
            self.folder.end_stage(self.stage)
        elif self.begun:
            self.folder.discard(self.stage)
        else:
            self.folder.withdraw(self.stage)

    def end(self, resumed: bool) -> None:
        """The stage has ended. If resumed, write the best weights again: the folder may have been changed."""
        if resumed:
            self.on_best()
        self.folder.end_stage(self.stage)
        lines = [line for line in self.folder.metrics() if line.stage == self.stage and line.best]
        if lines and lines[-1].validation is not None:
            log.info(
                "best epoch %d: validation %s %.4f", lines[-1].epoch, VALIDATION_METRIC, lines[-1].validation
            )
        log.info("the run is in %s", self.folder.path)


def _log_beginning(title: str, dataset: Dataset, progress: Progress | None) -> None:
    if progress is not None:
        log.info("%s resumes in epoch %d, after step %d", title, progress.epoch, progress.step)
    elif not len(dataset.validation.interactions):
        log.info("the dataset has no validation events: %s keeps the weights of its last epoch", title)


def dry_run_stage(
    model: NeuralRecommender,
    stage: str,
    dataset: Dataset,
    training: TrainConfig,
    accelerator: Accelerator,
    memory: float | None,
) -> None:
    """Print what a stage would take."""
    estimate = estimated_stage(model, dataset, stage, training, accelerator, memory)
    if accelerator.is_main_process:
        n_events = len(dataset.train.interactions)
        numbers = {"user": dataset.n_users, "item": dataset.n_items, "training event": n_events}
        sizes = ", ".join(counted(number, noun) for noun, number in numbers.items())
        say(f"{model.name}, {stage}: {sizes}")
        say(str(estimate))


def _progress(resume_file: ResumeFile, precision: str) -> Progress:
    """The progress of the stage so far.

    Raises:
        ValueError: it began in another precision.
    """
    description = resume_file.describe()
    if description is None:
        return Progress()
    before = description.conditions.precision
    if before != precision:
        raise ValueError(
            f"{resume_file.path}: training began in precision {before}, not {precision}: set "
            f"ACCELERATE_MIXED_PRECISION={before}"
        )
    return description.progress


@contextmanager
def _interruptions(request: StopRequest, how_to_resume: str, main: bool) -> Iterator[None]:
    """Name the command that resumes training after a signal or the loss of a process.

    Raises:
        SystemExit: a signal stopped training, with the usual status.
        LostProcessError: another process has ended.
    """
    interruption = ""
    try:
        with request.listening():
            yield
    except Stopped as stopped:
        interruption = f"stopped {stopped}; all of it is saved"
        raise SystemExit(128 + (request.signal or signal.SIGTERM)) from None
    except KeyboardInterrupt:
        interruption = "stopped at once; what was saved last is kept"
        raise
    except Exception as error:
        if not lost_process(error):
            raise
        raise LostProcessError(
            "another process of this training has ended; what was saved last is kept; resume with: "
            + how_to_resume
        ) from error
    finally:
        if main and interruption:
            log.info("%s; resume with: %s", interruption, how_to_resume)


def run_stage(
    model: NeuralRecommender,
    stage: str,
    dataset: Dataset,
    training: TrainConfig,
    folder: RunFolder,
    accelerator: Accelerator,
    how_to_resume: str,
    memory: float | None = None,
    further: bool = False,
) -> None:
    """Train a stage, or resume it after an interruption; the main process writes into the run folder.

    Args:
        model, stage, dataset, training, accelerator, memory: as in `fit_stage`.
        folder: the run.
        how_to_resume: the command that is named after an interruption.
        further: whether the stage goes on from its own weights, which are in the folder.

    Raises:
        SystemExit: a signal stopped training, with the usual status.
        ValueError: the stage began in another precision, or training was refused.
        LostProcessError: another process has ended.
    """
    precision, main = accelerator.mixed_precision, accelerator.is_main_process
    if precision != default_precision():
        how_to_resume = f"ACCELERATE_MIXED_PRECISION={precision} {how_to_resume}"
    settings = StageSettings(asdict(model.config), asdict(training), precision)
    conditions = Conditions(settings.system, settings.training, precision)
    resume_file, request = folder.resume_file(stage, conditions), StopRequest()
    progress = _progress(resume_file, precision)
    wait_for_everyone(accelerator)
    resumed = resume_file.path.is_file()
    hooks = Hooks(should_stop=request, save_first=further)
    if main:
        # Before time is spent on training.
        check_folder(folder.path / stage, "model.json")
        folder.announce(stage, settings)
        trained_with = replace(settings, n_processes=accelerator.num_processes)
        records = _Records(model, stage, folder, trained_with, progress.epoch)
        hooks = Hooks(records.on_epoch, records.on_best, request, save_first=further)
        _log_beginning(model.stage_title(stage), dataset, progress if resumed else None)
    try:
        with _interruptions(request, how_to_resume, main):
            model.fit_stage(dataset, stage, training, hooks, accelerator, resume_file, memory)
            wait_for_everyone(accelerator)
    except DivergedError as diverged:
        if main:
            records.diverged(diverged.kept)
        raise
    except ValueError:
        if main:
            records.refused(resume_file)
        raise
    if main:
        records.end(resumed)
