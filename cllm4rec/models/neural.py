"""What systems with a network share: stages of objectives, the loop, the best weights, the checkpoint."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.messages import shorten
from cllm4rec.models.base import REMEDY, Recommender, Shapes
from cllm4rec.models.description import ModelDescription, checked_array
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator, on_gpu
from cllm4rec.training.dry_run import DryRun, dry_run
from cllm4rec.training.objective import Objective
from cllm4rec.training.progress import EpochRecord
from cllm4rec.training.resume import ResumeFile

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring


class NeuralRecommender(InnerProductRecommender):
    """A system trained in stages by the common loop.

    A subclass builds the network (`_build`), says what each stage learns (`_objectives`) and what vectors
    users and items have.
    """

    validated_stages: ClassVar[tuple[str, ...]] = (
        "pretrain",
        "finetune",
    )  # stages that learn to rank, so that validation chooses
    net: Any
    stage: str | None = None
    trained_base: Recommender | None = (
        None  # the system that this one stands on, where it was trained already
    )

    @property
    def base_system(self) -> str | None:
        """Name of a system that is to be trained first, as this one stands on it."""
        return None

    def check(self, train: Dataset) -> None:  # noqa: B027 - most systems can be trained on whatever there is
        """Refuse what cannot be trained, before a folder is made or another system is trained for this one.

        Raises:
            ValueError: says what is missing.
        """

    def _before(  # noqa: B027 - most systems need nothing
        self,
        train: Dataset,
        validation: Dataset | None,
        seen: Dataset | None,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        """What the first stage needs before the network is built."""

    @abstractmethod
    def _build(self, train: Dataset, seed: int) -> nn.Module:
        """A new network; whatever is fitted sees the training events only."""

    @abstractmethod
    def _objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        """What the stage learns."""

    @abstractmethod
    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> nn.Module:
        """The network of a saved model, weights not yet filled in; the arguments are those of `_prepare`.

        Sizes in the settings are compared with `shapes` before they are believed.
        """

    def _built_from(self) -> dict[str, Any]:
        """What a state is only taken up with, beside the settings: things fitted when the network was built."""
        return {}

    def fit(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        config: TrainConfig | None = None,
        stage: str = "pretrain",
        on_epoch: Callable[[EpochRecord], None] = lambda record: None,
        on_best: Callable[[], None] = lambda: None,
        accelerator: Accelerator | None = None,
        state: ResumeFile | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        seen: Dataset | None = None,
    ) -> Self:
        """Run one stage. The first stage starts afresh, a later one goes on from the weights at hand.

        Args:
            train: the events to learn from.
            validation: the events that choose the best epoch; without any, the last epoch's weights are kept.
            config: how to train; the stage's defaults if not given.
            stage: one of `stages`.
            on_epoch: called with the record of each epoch.
            on_best: called when the weights are the best so far (to write them down).
            accelerator: where to run.
            state: file in which the state is saved, and from which training goes on if it is there.
            should_stop: asked in every step.
            seen: the events that users are validated by; `train` if not given.

        Raises:
            Stopped: `should_stop` said so; the state is saved.
            ValueError: there is nothing to learn from, or training diverged.
        """
        config, accelerator = self._start(train, validation, config, stage, accelerator, seen)
        held_out = validation if self._ranks(stage, validation) else None
        if state is not None:
            state = replace(state, about=state.about | self._built_from())
        loop.train(
            self.net,
            self._objectives(train, stage, config),
            config,
            accelerator,
            None
            if held_out is None
            else lambda: shared_validation(self, seen or train, held_out, accelerator),
            on_best,
            on_epoch,
            state,
            should_stop,
        )
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
        """Have a network to train: a new one in the first stage."""
        if stage not in self.stages:
            raise ValueError(f"stage {stage!r} is unknown: {self.name} has {', '.join(self.stages)}")
        config = self.config_class.training[stage] if config is None else config
        accelerator = make_accelerator() if accelerator is None else accelerator
        if stage == self.stages[0]:
            self._learn_ids(train)
            self._before(train, validation, seen, accelerator, config.seed)
            self.net = self._build(train, config.seed)
        self.stage = stage
        self.net.to(accelerator.device)
        return config, accelerator

    def _ranks(self, stage: str, validation: Dataset | None) -> bool:
        return stage in self.validated_stages and validation is not None and len(validation.interactions) > 0

    def dry_run(
        self,
        train: Dataset,
        validation: Dataset,
        config: TrainConfig,
        stage: str,
        accelerator: Accelerator,
        seen: Dataset,
    ) -> DryRun:
        """What `fit` with the same arguments would take; the weights are no longer those they were."""
        self._start(train, validation, config, stage, accelerator, seen)

        def seconds() -> float:
            users = np.flatnonzero(np.diff(validation.interactions.indptr) > 0)
            some = users[:: max(1, len(users) // 512)]
            measure(self, seen, validation, users=some[:1])  # what is made once is not counted
            return (
                measure(self, seen, validation, users=some).seconds
                * len(users)
                / len(some)
                / accelerator.num_processes
            )

        validate = seconds if self._ranks(stage, validation) else None
        return dry_run(self.net, self._objectives(train, stage, config), config, accelerator, validate)

    def set_config(self, config: Any) -> None:
        """Take other settings for the stages to come.

        Raises:
            ValueError: one of them was settled by the first stage.
        """
        for setting in self.config.fixed_after_pretraining:
            if getattr(config, setting) != getattr(self.config, setting):
                raise ValueError(
                    f"{setting} was settled by pretraining ({getattr(self.config, setting)}): pretrain anew to change it"
                )
        self.config = self.requested_config = self.net.config = config

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    @property
    def device(self) -> torch.device:
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
            odd = sorted(set(trained) ^ set(arrays))[0]
            raise ValueError(f"model.safetensors does not fit this system: {odd} is on one side only")
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


def shared_validation(
    model: Recommender, seen: Dataset, held_out: Dataset, accelerator: Accelerator
) -> float:
    """NDCG@100, each user scored by one process only; the same value on all.

    Raises:
        ValueError: no user has both a held-out item and a history.
    """
    users = np.flatnonzero(np.diff(held_out.interactions.indptr) > 0)
    result = measure(
        model, seen, held_out, users=users[accelerator.process_index :: accelerator.num_processes]
    )
    gathered = gather_object([(result.users.tolist(), result.per_user["ndcg@100"].tolist())])
    by_user = {user: value for own, values in gathered for user, value in zip(own, values, strict=True)}
    if not by_user:
        raise ValueError("no user with validation events has training events: choose another split")
    return float(np.mean([by_user[user] for user in sorted(by_user)]))
