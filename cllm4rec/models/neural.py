"""Systems with a network: training in stages, the best weights, saving and loading."""

import logging
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from cllm4rec.data.audit import auditing, refuse_learned
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.loading import as_dataset
from cllm4rec.messages import shorten
from cllm4rec.models.base import Recommender
from cllm4rec.models.description import ModelDescription, Shapes, restore_arrays
from cllm4rec.models.fitted import fitted_buffers, fitted_sha256
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.stages import Training, check_stage, check_training, stage_configs
from cllm4rec.models.storage import REMEDY
from cllm4rec.models.validation import BestVectors, log_validated_users, shared_validation
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator, on_gpu
from cllm4rec.training.hooks import NO_HOOKS, Hooks
from cllm4rec.training.objective import Objective
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import BuiltFrom, DivergedError, ResumeFile

log = logging.getLogger("cllm4rec")


class NeuralRecommender(InnerProductRecommender):
    """A system whose network is trained in stages by the training loop.

    A subclass builds the network (`_build`), gives the objectives of each stage (`objectives`) and the
    vectors of users and items (`_vectors`).

    Attributes:
        validated_stages: stages that learn to rank, so that validation chooses their weights.
        net: the network; an `nn.Module` with the methods of `Net`.
        stage: the last stage that was trained or built.
        trained_base: the trained `base_system`, if the caller has one.
        is_base: whether it is trained as the base system of another, which its log then says.
    """

    validated_stages: ClassVar[tuple[str, ...]] = ("pretrain", "finetune")
    net: Any
    stage: str | None = None
    trained_base: Recommender | None = None
    is_base: bool = False

    @property
    def base_system(self) -> Recommender | None:
        """A system that has to be trained before this one, which uses its embeddings; None for none."""
        return None

    def _before(  # noqa: B027 - most systems need nothing
        self, dataset: Dataset, config: TrainConfig, accelerator: Accelerator
    ) -> None:
        """Prepare what `_build` needs; the arguments are those of `build`."""

    def _begin(
        self, dataset: Dataset, before: str | None, config: TrainConfig, accelerator: Accelerator
    ) -> float | None:
        """Choose or measure the first weights of a stage, after stage `before`. A resumed stage has its own.

        Returns:
            Their validation metric if training keeps them unless it finds better ones, else None.
        """
        measures = self._n_first_validations(dataset, before, config) > 0
        return shared_validation(self, dataset, accelerator) if measures else None

    def _has_other_weights(self, dataset: Dataset, before: str | None) -> bool:
        """Whether `_begin` compares other weights with those of stage `before`."""
        return False

    def _n_first_validations(self, dataset: Dataset, before: str | None, config: TrainConfig) -> int:
        """Number of validations before the first epoch of a stage that follows stage `before`."""
        if self._has_other_weights(dataset, before):
            return 2
        stage, follows = str(self.stage), config.epochs > 0 and before in self.validated_stages
        return int(follows and stage not in (before, self.stages[0]) and self._is_validated(dataset, stage))

    def _after(self, dataset: Dataset, stage: str, accelerator: Accelerator, hooks: Hooks) -> bool:
        """Add to the trained network of a stage; whether anything was added. All processes call it."""
        return False

    @abstractmethod
    def _build(self, train: Dataset, seed: int) -> nn.Module:
        """A new network. Whatever is fitted sees the training events only."""

    @abstractmethod
    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        """The objectives of a stage, in the order in which an epoch visits them.

        Args:
            train: the events to learn from, those the network was built for.
            stage: one of `stages`.
            config: how the stage is trained.
        """

    @abstractmethod
    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> nn.Module:
        """The network of a saved model, without its weights; the arguments are those of `_prepare`.

        Sizes in the settings are compared with `shapes` before memory is allocated for them.
        """

    def _built_from(self) -> BuiltFrom:
        """What the network was built from; it has to match before training resumes."""
        return BuiltFrom()

    @property
    def _is_fitted(self) -> bool:
        return self.stage is not None

    def fit(self, dataset: Dataset | str | Path, training: Training | None = None) -> Self:
        """Train all stages on the training events, each from the best weights of the one before.

        The weights are those of the commands pretrain and finetune with the same settings. Bars show the
        progress on a terminal. The logger `cllm4rec` gets a line on each epoch at level INFO, which is shown
        after `logging.basicConfig(level=logging.INFO)`.

        Args:
            dataset: as in `Recommender.fit`, or its folder; without validation events, each stage keeps its
                last weights.
            training: how to train: settings for all stages, or stage -> settings. By default each stage has
                those of the system, and later stages take the seed of the first.

        Raises:
            ValueError: `training` is no settings of its stages; or as in `check` and `fit_stage`.
        """
        dataset = as_dataset(dataset)
        configs = stage_configs(training, self.config.default_training, self.name)
        self.check(dataset)
        for stage, config in configs.items():
            self.fit_stage(dataset, stage, config)
        return self

    def build(
        self, dataset: Dataset, config: TrainConfig | None = None, accelerator: Accelerator | None = None
    ) -> Self:
        """Build the network with its initial weights, as the first stage does.

        Args:
            dataset: what is fitted, e.g. a tokenizer, sees its training events only.
            config: how the first stage is trained, by default that of the system. Its seed draws the weights.
                A base system that is trained first takes its seed and time limit.
            accelerator: device, precision and processes.
        """
        config = self.config.default_training[self.stages[0]] if config is None else config
        accelerator = make_accelerator() if accelerator is None else accelerator
        self.stage = None  # until there is a network for these ids
        self._learn_ids(dataset)
        self._before(dataset, config, accelerator)
        self.net = self._build(dataset.train, config.seed).to(accelerator.device).eval()
        self.stage = self.stages[0]
        return self

    def fit_stage(
        self,
        dataset: Dataset | str | Path,
        stage: str,
        config: TrainConfig | None = None,
        hooks: Hooks = NO_HOOKS,
        accelerator: Accelerator | None = None,
        resume_file: ResumeFile | None = None,
        memory: float | None = None,
    ) -> Self:
        """Train one stage. The first stage builds the network, a later one trains it further.

        Args:
            dataset: as in `fit`.
            stage: one of `stages`.
            config: how to train; the system's settings of the stage if not given.
            hooks: functions called while training; their `validate` is replaced.
            accelerator, resume_file, memory: as `loop.train` takes them.

        Raises:
            Stopped: `hooks.should_stop` returned True; progress is saved.
            LeakError: held-out events would be learned from.
            ValueError: there is nothing to learn from, an earlier stage is missing or was trained on other
                users or items, or training diverged.
        """
        dataset = as_dataset(dataset)
        accelerator = make_accelerator() if accelerator is None else accelerator
        with auditing(dataset, self.stage_title(stage), accelerator.is_main_process):
            before = self.stage
            config = self._start(dataset, stage, config, accelerator)
            resumes = resume_file is not None and resume_file.path.exists()
            metric = None if resumes else self._begin(dataset, before, config, accelerator)
            is_validated = self._is_validated(dataset, stage)
            if is_validated and config.epochs:
                log_validated_users(self, dataset, self.stage_title(stage), accelerator)
            vectors = BestVectors(self)
            metric_of = partial(shared_validation, self, dataset, accelerator)
            validate = partial(vectors.validate, metric_of) if is_validated else None
            if resume_file is not None:
                built_from = replace(self._built_from(), fitted=fitted_sha256(self.net))
                resume_file = resume_file.of_network(built_from)
            objectives = self.objectives(dataset.train, stage, config)
            on_epoch = partial(self._on_epoch, stage, vectors, hooks, accelerator)
            hooks = replace(hooks, validate=validate, on_epoch=on_epoch)
            try:
                loop.train(self.net, objectives, config, accelerator, hooks, resume_file, memory, metric)
            except DivergedError as diverged:  # without a validated epoch it does not count as fitted
                self.stage = stage if diverged.kept else None
                raise
            with self.keeping_vectors(vectors.of_best):  # it reads the users of validation
                added = self._after(dataset, stage, accelerator, hooks)
            if added:
                hooks.on_best()
        return self

    def stage_title(self, stage: str) -> str:
        """First words of the lines that are logged about a stage."""
        return f"{self.name} {stage}" if self.is_base else stage

    def _on_epoch(
        self, stage: str, vectors: BestVectors, hooks: Hooks, accelerator: Accelerator, record: EpochRecord
    ) -> None:
        """Hand on the record of an epoch, and log it on the main process."""
        vectors.note(record)
        hooks.on_epoch(record)
        if accelerator.is_main_process:
            log.info("%s %s", self.stage_title(stage), record)

    def _start(
        self, dataset: Dataset, stage: str, config: TrainConfig | None, accelerator: Accelerator
    ) -> TrainConfig:
        """Prepare the network for training, on the device: a new one in the first stage."""
        check_stage(stage, self.stages, self.name)
        config = self.config.default_training[stage] if config is None else config
        check_training(config)
        if stage == self.stages[0]:
            self.build(dataset, config, accelerator)
        elif self.stage is None:
            raise ValueError(f"there is no network for {stage} to train further: fit {self.stages[0]} first")
        else:
            self._check_ids(dataset)
            held_out = dataset.only("validation", "test").interactions
            reader = f"{self.stage} has learned from"
            refuse_learned(self.fitted_elsewhere(dataset), dataset, held_out, reader)
        self.stage = stage
        self._learn_ids(dataset)  # its users may have other training events than before
        self.net.to(accelerator.device)
        return config

    def _is_validated(self, dataset: Dataset, stage: str) -> bool:
        """Whether validation events choose the weights of a stage."""
        return stage in self.validated_stages and len(dataset.validation.interactions) > 0

    def set_config(self, config: Any) -> None:
        """Take other settings for the stages to come; the network reads the same object.

        Raises:
            ValueError: pretraining fixed one of them, or they are those of another system.
        """
        self._check_fitted()
        self._check_config(config)
        self.config.check_finetuning(config)
        self.config = self.net.config = config

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def _stored(self) -> dict[str, nn.Parameter]:
        """The parameters in model.safetensors, by name."""
        return self._trained()

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        self._check_fitted()
        return next(self.net.parameters()).device

    def _arrays(self) -> dict[str, np.ndarray]:
        weights = {name: p.detach().float().cpu().numpy() for name, p in self._stored().items()}
        return weights | {name: buffer.cpu().numpy() for name, buffer in fitted_buffers(self.net).items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        restore_arrays(self._stored(), fitted_buffers(self.net), arrays)
        self.net.to("cuda" if on_gpu() else "cpu").eval()

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"stage": self.stage}

    def _prepare(self, folder: Path, described: ModelDescription, shapes: Shapes) -> None:
        self.stage = described.get("stage")
        if self.stage not in self.stages:
            raise ValueError(
                f"{folder} is damaged (model.json: stage {shorten(repr(self.stage))} is unknown): {REMEDY}"
            )
        self.net = self._rebuild(folder, described, shapes)
