"""Systems with a network: training in stages, the best weights, saving and loading."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.data.dataset import Dataset
from cllm4rec.messages import shorten
from cllm4rec.models.base import Recommender
from cllm4rec.models.description import ModelDescription, Shapes, checked_array
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.storage import REMEDY
from cllm4rec.models.validation import shared_validation, validation_seconds
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator, on_gpu
from cllm4rec.training.dry_run import DryRun, dry_run
from cllm4rec.training.hooks import NO_HOOKS, Hooks
from cllm4rec.training.objective import Objective
from cllm4rec.training.resume import BuiltFrom, ResumeFile

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring


class NeuralRecommender(InnerProductRecommender):
    """A system whose network is trained in stages by the training loop.

    A subclass builds the network (`_build`), gives the objectives of each stage (`objectives`) and the
    vectors of users and items (`_vectors`).

    Attributes:
        validated_stages: stages that learn to rank, so that validation chooses their weights.
        net: the network; an `nn.Module` with the methods of `Net`.
        stage: the last stage that was trained or built.
        trained_base: the trained `base_system`, if the caller has one.
    """

    validated_stages: ClassVar[tuple[str, ...]] = ("pretrain", "finetune")
    net: Any
    stage: str | None = None
    trained_base: Recommender | None = None

    @property
    def base_system(self) -> str | None:
        """Name of a system that is trained before this one, which uses its embeddings."""
        return None

    def check(self, train: Dataset) -> None:  # noqa: B027 - most systems can be trained on any dataset
        """Refuse a dataset or settings before a folder is made or a base system is trained.

        Raises:
            ValueError: the message names what is missing.
        """

    def _before(  # noqa: B027 - most systems need nothing
        self,
        train: Dataset,
        validation: Dataset | None,
        seen: Dataset | None,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        """Prepare what `_build` needs; the arguments are those of `build`."""

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

    def build(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        seed: int = 0,
        accelerator: Accelerator | None = None,
        *,
        seen: Dataset | None = None,
    ) -> Self:
        """Build the network with its initial weights, as the first stage of `fit` does.

        Args:
            train: the events to learn from; what is fitted, e.g. a tokenizer, sees no others.
            validation: chooses the best epoch of a base system that is trained first.
            seed: of the initial weights.
            accelerator: device, precision and processes.
            seen: the events that a base system is validated from; `train` if not given.
        """
        accelerator = make_accelerator() if accelerator is None else accelerator
        self._learn_ids(train)
        self._before(train, validation, seen, accelerator, seed)
        self.net = self._build(train, seed).to(accelerator.device).eval()
        self.stage = self.stages[0]
        return self

    def fit(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        config: TrainConfig | None = None,
        stage: str = "pretrain",
        hooks: Hooks = NO_HOOKS,
        accelerator: Accelerator | None = None,
        resume_file: ResumeFile | None = None,
        *,
        seen: Dataset | None = None,
    ) -> Self:
        """Train one stage. The first stage builds the network, a later one trains it further.

        Args:
            train: the events to learn from.
            validation: the events that choose the best epoch; without any, the last weights are kept.
            config: how to train; the stage's defaults if not given.
            stage: one of `stages`.
            hooks: functions called while training; their `validate` is replaced.
            accelerator: device, precision and processes.
            resume_file: where progress is saved. If the file exists, training resumes from it.
            seen: the events that users are validated from; `train` if not given.

        Raises:
            Stopped: `hooks.should_stop` returned True; progress is saved.
            ValueError: there is nothing to learn from, an earlier stage is missing, or training diverged.
        """
        config, accelerator = self._start(train, validation, config, stage, accelerator, seen)
        held_out = self._held_out(stage, validation)
        validate = None
        if held_out is not None:
            validate = partial(shared_validation, self, seen or train, held_out, accelerator)
        if resume_file is not None:
            conditions = replace(resume_file.conditions, built_from=self._built_from())
            resume_file = replace(resume_file, conditions=conditions)
        objectives, hooks = self.objectives(train, stage, config), replace(hooks, validate=validate)
        loop.train(self.net, objectives, config, accelerator, hooks, resume_file)
        return self

    def _start(
        self,
        train: Dataset,
        validation: Dataset | None,
        config: TrainConfig | None,
        stage: str,
        accelerator: Accelerator | None,
        seen: Dataset | None,
    ) -> tuple[TrainConfig, Accelerator]:
        """Have a network to train on the device: a new one in the first stage."""
        if stage not in self.stages:
            raise ValueError(f"stage {stage!r} is unknown: {self.name} has {', '.join(self.stages)}")
        config = self.config_class.training[stage] if config is None else config
        accelerator = make_accelerator() if accelerator is None else accelerator
        if stage == self.stages[0]:
            self.build(train, validation, config.seed, accelerator, seen=seen)
        elif self.stage is None:
            first = self.stages[0]
            raise ValueError(f"there is no network that {stage} could train further: fit {first} first")
        self.stage = stage
        self.net.to(accelerator.device)
        return config, accelerator

    def _held_out(self, stage: str, validation: Dataset | None) -> Dataset | None:
        """The events that choose the weights of a stage; None if there are none."""
        if stage not in self.validated_stages or validation is None or not len(validation.interactions):
            return None
        return validation

    def dry_run(
        self,
        train: Dataset,
        validation: Dataset,
        config: TrainConfig,
        stage: str,
        accelerator: Accelerator,
        seen: Dataset,
    ) -> DryRun:
        """Time and memory that `fit` with these arguments would take. The weights change."""
        self._start(train, validation, config, stage, accelerator, seen)
        held_out = self._held_out(stage, validation)
        time_validation = None
        if held_out is not None:
            time_validation = partial(validation_seconds, self, seen, held_out, accelerator)
        objectives = self.objectives(train, stage, config)
        return dry_run(self.net, objectives, config, accelerator, time_validation)

    def set_config(self, config: Any) -> None:
        """Take other settings for the stages to come; the network reads the same object.

        Raises:
            ValueError: pretraining fixed one of them.
        """
        self.config.check_finetuning(config)
        self.config = self.net.config = config

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.net.parameters()).device

    def _encode_by_length(
        self, lengths: np.ndarray, width: int, encode: Callable[[np.ndarray], Tensor]
    ) -> Tensor:
        """States of histories, float32 (B, d), encoded in batches of similar length.

        Args:
            lengths: int64 (B,), approximate tokens of each history; the state of an empty one is zero.
            width: d.
            encode: gives the states (b, d) of the histories of some rows (b,).
        """
        states = torch.zeros(len(lengths), width, device=self.device)
        self.net.eval()
        not_empty = np.flatnonzero(lengths)
        for batch in batches_by_length(lengths[not_empty], TOKENS_AT_ONCE):
            rows = not_empty[batch]
            states[torch.from_numpy(rows)] = encode(rows).to(torch.float32)
        return states

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: p.detach().float().cpu().numpy() for name, p in self._trained().items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        trained = self._trained()
        if set(trained) != set(arrays):
            name = sorted(set(trained) ^ set(arrays))[0]
            side = "file" if name in arrays else "network"
            raise ValueError(f"model.safetensors does not fit this system: {name} is only in the {side}")
        if len({array.dtype for array in arrays.values()}) > 1:
            raise ValueError("model.safetensors does not fit this system: its numbers are of several types")
        for name, parameter in trained.items():
            array = checked_array(arrays, name, tuple(parameter.shape), np.float32, np.float64)
            parameter.data = torch.from_numpy(array)  # no copy: a large table stays on disk until it is read
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
