"""Copies of a run and of its dataset with further items, users and events, or without some users."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from cllm4rec.commands.dataset_report import sizes_of, warn_of_added_events
from cllm4rec.commands.entry import log, say
from cllm4rec.commands.first_stage import FirstStage, train
from cllm4rec.commands.flags import started_as
from cllm4rec.commands.stage_settings import settings_of, training_lock
from cllm4rec.commands.stages import run_stage
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.extension import Extension, extended, without_users
from cllm4rec.data.readers.tables import CheckedTable
from cllm4rec.files.folders import replace_folder
from cllm4rec.messages import counted, join_names
from cllm4rec.models import load_stage, system_config
from cllm4rec.models.adaptation import UnreadItemsError
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.records import write_metrics
from cllm4rec.training.run_folder import MARKER, METRICS, STAGES, RunFolder


@dataclass(frozen=True)
class Extending:
    """A run to copy with changes.

    Attributes:
        folder: the run.
        dataset: its dataset.
        dataset_folder: where that was read.
        output: folder of the new run.
        new_dataset: folder of the new dataset.
        backbone: where the frozen backbone of the run is, if it has moved.
        item_vectors: file of vectors of all items, new ones included, for a run that reads such a file.
    """

    folder: RunFolder
    dataset: Dataset
    dataset_folder: Path
    output: Path
    new_dataset: Path
    backbone: str | None = None
    item_vectors: str | None = None

    def forget(self, ids: list[str]) -> None:
        """Take users out.

        Raises:
            ValueError: a user is unknown, or none is left.
        """
        fewer = without_users(self.dataset, ids)
        models = {stage: model.adapted_to(fewer) for stage, model in self._models().items()}
        with self._written(fewer):
            self._write_run(models, fewer)
        n_taken = counted(self.dataset.n_users - fewer.n_users, "user")
        say(f"{n_taken} taken out: rows, events, reviews and texts")
        say(
            f"{self.folder.path} and {self.dataset_folder} still hold them: delete both, and the tables they "
            "came from"
        )
        say("what the vectors of items have learned from their events stays")
        self._say_result(fewer)

    def add(
        self, events: CheckedTable | None, items: CheckedTable | None, users: CheckedTable | None
    ) -> None:
        """Add items, users and events. With events, training goes on; a system of one stage is trained anew.

        Raises:
            ValueError: a table does not fit, or the system cannot be extended.
        """
        if events is not None and self._has_two_stages and not self.folder.ended("finetune"):
            raise ValueError(
                f"{self.folder.path} is not finetuned, so that training cannot go on: finetune it first"
            )
        extension, models = self._extended(events, items, users)
        with self._written(extension.dataset):
            if models:
                self._write_run(models, extension.dataset, goes_on=events is not None)
            _say_added(self.dataset, extension)
            if events is None:
                self._say_result(extension.dataset)
            elif models:
                self._go_on(extension.dataset)
            else:
                self._train_anew(extension.dataset)

    @contextmanager
    def _written(self, dataset: Dataset) -> Iterator[None]:
        """Write the new dataset. It is deleted if the block fails before there is a run for it."""
        dataset.save(self.new_dataset)
        try:
            yield
        except BaseException:
            if not (self.output / MARKER).is_file():
                shutil.rmtree(self.new_dataset.resolve(), ignore_errors=True)
            raise

    @property
    def _has_two_stages(self) -> bool:
        return "finetune" in system_config(self.folder.description.system).training

    def _models(self) -> dict[str, Recommender]:
        """The models of the run, by stage."""
        ended = [stage for stage in STAGES if self.folder.ended(stage)]
        models = {stage: load_stage(self.folder, stage, self.backbone) for stage in ended}
        for model in models.values():
            model.source = self.dataset  # it may have moved
            model.config = self._with_vectors(model.config)
        return models

    def _with_vectors(self, config: Any) -> Any:
        """The settings of a system, with the new file of vectors if there is one.

        Raises:
            ValueError: the system reads no such file, or the file has no ids.
        """
        if self.item_vectors is None:
            return config
        if getattr(config, "item_vectors", None) is None:
            raise ValueError("the run reads no file of vectors: leave `item_vectors` out")
        if Path(self.item_vectors).suffix == ".npy":
            raise ValueError(
                "`item_vectors`: a .npy file has no ids, of which new ones need some: give .parquet"
            )
        return replace(config, item_vectors=str(Path(self.item_vectors).resolve()))

    def _extended(
        self, events: CheckedTable | None, items: CheckedTable | None, users: CheckedTable | None
    ) -> tuple[Extension, dict[str, Recommender]]:
        """The extended dataset, and models for it; none if they are to be trained anew.

        New items without a text that the model reads are left out.
        """
        extension = extended(self.dataset, items, events, users)
        if events is not None and not self._has_two_stages:
            return extension, {}
        models = self._models()
        try:
            wide = extension.without_events
            return extension, {stage: model.adapted_to(wide) for stage, model in models.items()}
        except UnreadItemsError as unread:
            if items is None or len(unread.ids) == unread.n_new:
                raise
            names = pl.Series([str(name) for name in unread.ids])
            if events is not None:
                _refuse_events_of(names, events)
            log.warning(
                "%s without a text that the model reads: left out (%s)",
                counted(len(names), "new item"),
                join_names(names),
            )
            is_read = ~items.frame["item_id"].cast(pl.String).is_in(names.implode())
            return self._extended(events, replace(items, frame=items.frame.filter(is_read)), users)

    def _write_run(self, models: Mapping[str, Recommender], dataset: Dataset, goes_on: bool = False) -> None:
        """Write the new run, with the settings and metrics of the old one.

        Args:
            models: by stage.
            dataset: of the models.
            goes_on: whether finetuning goes on. Then it is under way from the start, so that an interruption
                does not leave a run that seems to have learned from all events of its dataset.
        """
        description = self.folder.description
        with replace_folder(self.output, MARKER) as new:
            run = RunFolder.create(new, description.system, dataset, self.new_dataset, description.preset)
            for stage, model in models.items():
                settings = replace(
                    description.stages[stage], system=asdict(model.config), manifest_sha256=None
                )
                model.save(new / stage)
                if goes_on and stage == "finetune":
                    run.announce(stage, settings)
                else:
                    run.begin_stage(stage, settings)
                    run.end_stage(stage)
            write_metrics(new / METRICS, self.folder.metrics())

    def _say_result(self, dataset: Dataset) -> None:
        say(f"{sizes_of(dataset)} -> {self.new_dataset}")
        say(f"the run is in {self.output}")

    def _go_on(self, dataset: Dataset) -> None:
        """Finetune the new run further, by the settings of the old one."""
        with training_lock(self.output, dry_run=False):
            run = RunFolder.open(self.output)
            under_way = run.description.under_way["finetune"]
            _, training = settings_of(run, "finetune", under_way)
            accelerator = make_accelerator()
            model = load_stage(run, "finetune", self.backbone)
            assert isinstance(model, NeuralRecommender)
            how_to_resume = f"{started_as('finetune')} --run {shlex.quote(str(self.output))} --resume"
            try:
                run_stage(model, "finetune", dataset, training, run, accelerator, how_to_resume, further=True)
            except ValueError:
                if not run.ended("finetune"):  # it has not learned from the new events
                    run.announce("finetune", under_way)
                raise

    def _train_anew(self, dataset: Dataset) -> None:
        """Train a system of one stage on the new dataset, by the settings of the run."""
        description = self.folder.description
        config, *training = settings_of(self.folder, "pretrain", description.stages["pretrain"])
        stage = FirstStage(
            system=description.system,
            config=self._with_vectors(config),
            training=training[0] if training else None,
            dataset=dataset,
            dataset_path=str(self.new_dataset),
            output=self.output,
            how_to_resume=f"{started_as('pretrain')} --output {shlex.quote(str(self.output))} --resume",
            preset=description.preset,
        )
        with training_lock(self.output, dry_run=False):
            train(stage)


def _refuse_events_of(names: pl.Series, events: CheckedTable) -> None:
    """Raise ValueError if there are events of items that are left out."""
    found = events.frame["item_id"].cast(pl.String)
    found = found.filter(found.is_in(names.implode()))
    if len(found):
        raise ValueError(
            f"item {found[0]!r} has new events, and no text that the model reads: give it a text, or leave "
            "its events out"
        )


def _say_added(before: Dataset, extension: Extension) -> None:
    """Print what was added to a dataset, and what was not."""
    added = extension.dataset
    n_events = len(added.interactions) - len(before.interactions)
    numbers = {
        "item": added.n_items - before.n_items,
        "user": added.n_users - before.n_users,
        "event": n_events,
    }
    say("added " + ", ".join(counted(number, noun) for noun, number in numbers.items()))
    if extension.n_known_items:
        say(f"items of the table that are there already: {extension.n_known_items:,} (their texts stay)")
    if extension.n_repeated_items:
        say(f"rows of items that repeat an id: {extension.n_repeated_items:,} (the first is kept)")
    if extension.n_repeated:
        say(f"events that are there already, or repeat: {extension.n_repeated:,} (left out)")
    if extension.n_below:
        say(f"events with a rating below those of the dataset: {extension.n_below:,} (left out)")
    if extension.n_left_out_users:
        n_left_out = extension.n_left_out_users
        say(f"rows of the users' table without a new user: {n_left_out:,} (left out)")
    warn_of_added_events(added)
