"""RSLLM: titles and the ID embeddings of a sequential recommender in one prompt (arXiv 2412.16933)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import Accelerator
from torch import Tensor

from cllm4rec.corpora.prompts import OF_RSLLM, training_texts
from cllm4rec.corpora.rsllm import AnswerCorpus, ContrastiveCorpus, RSLLMCorpusOptions
from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.titles import natural_title
from cllm4rec.data.audit import learns_from
from cllm4rec.data.candidates import check_candidates, title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.messages import shorten
from cllm4rec.models import load, system_class, system_config
from cllm4rec.models.adaptation import OldRows
from cllm4rec.models.base import Recommender
from cllm4rec.models.description import ModelDescription, Shapes
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.language.loading import build_backbone
from cllm4rec.models.rsllm.answers import WAYS, TitleChooser
from cllm4rec.models.rsllm.config import CONVENTIONAL, FORMS, RSLLMConfig
from cllm4rec.models.rsllm.net import RSLLMNet
from cllm4rec.models.rsllm.sequential_score import SequentialScore, fitted_score
from cllm4rec.models.rsllm.states import history_states
from cllm4rec.models.sequential.base import SequentialRecommender, top_unseen
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.objective import Objective
from cllm4rec.training.resume import BuiltFrom
from cllm4rec.training.run_folder import RunFolder


class RSLLM(LanguageRecommender):
    """A language model that reads titles and soft tokens, trained in two stages on a sequential recommender.

    The sequential recommender is trained first. Stage 1 (`pretrain`): prompts of text alone, with the
    language-modelling loss of the answers. Stage 2 (`finetune`): prompts of `form`, with that loss + alpha
    C_item + beta C_user.

    Scores are those of C_user: the inner product of a history's state and P(e_j) of each item. Those of the
    sequential recommender are added, with a weight that is fitted to validation events.
    """

    name = "rsllm"
    config_class = RSLLMConfig
    prompt_names = (*OF_RSLLM, "separator")
    config: RSLLMConfig
    net: RSLLMNet
    validated_stages = ("finetune",)
    most_validated_users = 4096  # a pretrained language model reads some users a second on a CPU
    ways = ("scores", "language", *WAYS)
    user_tokens = False
    sequential: SequentialRecommender
    _form: str | None = None  # of prompts in training
    _latest_writer: tuple[pl.DataFrame, RSLLMConfig, str, PromptWriter] | None = None

    @property
    def form(self) -> str:
        """How prompts write items: `prompt`; auto is that of training, unified before it."""
        return (self._form or "unified") if self.config.prompt == "auto" else self.config.prompt

    @property
    def base_system(self) -> Recommender | None:
        if self.config.sequential not in CONVENTIONAL:
            return None
        config_class: type[Any] = system_config(self.config.sequential)
        return system_class(self.config.sequential)(config_class(item_text="auto"))

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        train = dataset.train
        self._titles(train.item_texts.get("title"), train.n_items)
        if self.base_system is None and self.trained_base is None:
            self._sequential_of_run(dataset)
        check_candidates(self.config.candidates, train)

    def _sequential_of_run(self, dataset: Dataset) -> SequentialRecommender:
        """The sequential recommender of the run that the settings name.

        Raises:
            ValueError: the run is of another system, or of other data.
        """
        run = RunFolder.open(self.moved.get("sequential", self.config.sequential))
        return self._as_sequential(load(run, dataset))

    def _before(self, dataset: Dataset, config: TrainConfig, accelerator: Accelerator) -> None:
        """Use the trained sequential recommender, load it from its run, or train it here.

        Raises:
            ValueError: the run is of another system, or of other data.
        """
        if self.trained_base is not None:
            self.sequential = self._as_sequential(self.trained_base)
        elif (base := self.base_system) is not None:
            self.sequential = self._as_sequential(base)
            self.sequential.is_base = True
            training = self.sequential.config.base_training(config)
            self.sequential.fit_stage(dataset, "pretrain", training, accelerator=accelerator)
        else:
            self.sequential = self._sequential_of_run(dataset)

    def _start(
        self, dataset: Dataset, stage: str, config: TrainConfig | None, accelerator: Accelerator
    ) -> TrainConfig:
        check_candidates(self.config.candidates, dataset.train)  # they may change between the stages
        started = super()._start(dataset, stage, config, accelerator)
        self.net.sequential_score = None
        resolved = "text" if self._adds_score(dataset) else "unified"
        self._form = resolved if self.config.prompt == "auto" else self.config.prompt
        return started

    def _adds_score(self, dataset: Dataset) -> bool:
        """Whether the score of the sequential recommender is added after stage 2."""
        return self.config.sequential_score == "auto" and len(dataset.validation.interactions) > 0

    def _after(self, dataset: Dataset, stage: str, accelerator: Accelerator, hooks: Hooks) -> bool:
        if stage != "finetune" or not self._adds_score(dataset):
            return False
        self.net.sequential_score = fitted_score(self, self.sequential, dataset, accelerator)
        return self.net.sequential_score is not None

    def _as_sequential(self, model: Recommender) -> SequentialRecommender:
        """The model, if it is a sequential recommender.

        Raises:
            ValueError: it is not.
        """
        if not isinstance(model, SequentialRecommender):
            raise ValueError(
                f"`sequential` {self.config.sequential} is a run of {model.name}: it may be "
                f"{' or '.join(CONVENTIONAL)}"
            )
        return model

    def _build(self, train: Dataset, seed: int) -> RSLLMNet:
        titles = self._titles(train.item_texts.get("title"), train.n_items)
        if self.config.built_in:  # a pretrained backbone has its own vocabulary
            learns_from("the vocabulary", train.interactions)
        texts = training_texts(OF_RSLLM, {"title": titles})
        backbone, text_tokenizer = build_backbone(
            self.config, texts, seed, self.config.dropout, self.moved.get("backbone")
        )
        self._extend(text_tokenizer, backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = RSLLMNet(backbone, self.config, self.sequential.net.item_vectors().detach().cpu())
        with torch.no_grad():  # soft tokens start with the standard deviation of the words at the input
            backbone.id_scale = backbone.id_scale_for(float(net.projected().std()))
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> RSLLMNet:
        name, self._form = described.get("sequential"), str(described.get("form", self.config.prompt))
        for key, value, known in (("sequential", name, CONVENTIONAL), ("form", self._form, FORMS)):
            if value not in known:
                found = f"model.json: {key} is {shorten(repr(value))}"
                raise ValueError(f"{folder} is damaged ({found}): {REMEDY}")
        self.sequential = self._as_sequential(system_class(str(name)).load(folder / "sequential"))
        backbone = self._restored_backbone(folder, described, shapes)
        net = RSLLMNet(backbone, self.config, self.sequential.net.item_vectors().detach().cpu())
        if "sequential_score.weight" in shapes:
            net.sequential_score = SequentialScore()
        return net

    def _built_from(self) -> BuiltFrom:
        digest = hashlib.sha256()
        for name, array in sorted(self.sequential._arrays().items()):
            digest.update(name.encode() + array.tobytes())
        return replace(super()._built_from(), sequential=digest.hexdigest())

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"sequential": self.sequential.name, "form": self.form}

    def _write_description(self, folder: Path) -> None:
        super()._write_description(folder)
        (folder / "sequential").mkdir()
        self.sequential._write(folder / "sequential")

    def _adapt(self, dataset: Dataset, rows: OldRows) -> None:
        self.sequential = self.sequential.adapted_to(dataset)

    def _titles(self, titles: list[str] | None, n_items: int) -> list[str]:
        """Titles of all items in the order of a sentence, "" for none.

        Raises:
            ValueError: no item has one, and the prompts need them.
        """
        if titles is None and self.config.prompt != "ids":
            raise ValueError(
                "rsllm reads titles, and the items have none: prepare the dataset with a table of items that "
                "has titles, or set `prompt` to ids"
            )
        return [""] * n_items if titles is None else [natural_title(title) for title in titles]

    def writer(self, items: pl.DataFrame) -> PromptWriter:
        """Writes prompts about the items of a dataset's table; the latest writer is kept."""
        if self._latest_writer is not None:
            table, config, form, writer = self._latest_writer
            known = table is items and writer.tokenizer is self.tokenizer
            if known and (config, form) == (self.config, self.form):
                return writer
        titles = items["title"].fill_null("").to_list() if "title" in items.columns else None
        writer = PromptWriter(
            self.tokenizer, self._titles(titles, len(items)), self.form, self.config.most_title_words
        )
        self._latest_writer = (items, self.config, self.form, writer)
        return writer

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        settings, groups = self.config, title_groups(train.items)
        options = RSLLMCorpusOptions(
            context=self.net.backbone.context,
            length=settings.length,
            candidates=settings.candidates,
            negatives=settings.negatives,
            seed=config.seed,
        )
        form = "text" if stage == "pretrain" else self.form
        titles = self._titles(train.item_texts.get("title"), train.n_items)
        writer = PromptWriter(self.tokenizer, titles, form, settings.most_title_words)
        if stage == "pretrain":
            return [Objective("text", AnswerCorpus(train.interactions, writer, groups, options))]
        n_hard = 0 if settings.negatives >= train.n_items else min(settings.hard, train.n_items)
        hard = top_unseen(self.sequential, train, n_hard)
        return [Objective("unified", ContrastiveCorpus(train.interactions, writer, groups, options, hard))]

    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        vectors = self._kept_vectors(users, lambda: self._encode(users, seen))
        score = self.net.sequential_score
        if score is None:
            return vectors
        return score.join(vectors, self.sequential._vectors(users, trained_users, seen))

    @torch.no_grad()
    def _encode(self, users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        """States of histories (B, d) for C_user, and P(e_j) of all items (n_items, d)."""
        projected = self.net.projected()
        histories = seen.interactions.histories(users).last(self.config.length)
        return history_states(self.net, self.writer(seen.items), histories, projected), projected

    @contextmanager
    def scored_by(self, by: str) -> Iterator[None]:
        """Score by "scores", or by "language": by C_user alone, without the sequential recommender."""
        if by not in ("scores", "language"):
            raise ValueError(f"`by` is {by!r}: scores of rsllm are by scores or by language")
        self._check_fitted()
        score = self.net.sequential_score
        self.net.sequential_score = None if by == "language" else score
        try:
            yield
        finally:
            self.net.sequential_score = score

    def _item_vectors(self) -> Tensor:
        return self.net.projected()

    @torch.no_grad()
    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Choose one candidate for each user, as `Recommender.choose` does.

        Args:
            by: "scores": those of `score`; "language": of C_user alone; "likelihood": of the candidates'
                titles, the mean log-probability of a token minus that without the history; "generation":
                greedy, of one title; "constrained": greedy among the candidates' titles.

        Returns:
            Indices into the candidates, int64 (B,); -1 where no title is generated or no candidate has one.

        Raises:
            ValueError: `by` is another word, or the items have no titles and titles are asked for.
        """
        if by in ("scores", "language"):
            return super().choose(users, candidates, seen, by)
        if by not in WAYS:
            raise ValueError(f"`by` is {by!r}: rsllm chooses by {', '.join(self.ways)}")
        self._checked(users, seen)
        writer, config = self.writer(seen.items), self.config
        if not len(writer.titles.values):
            raise ValueError(f"`by` {by} answers with titles, and the items have none: choose by scores")
        backbone = self.net.eval().backbone
        chooser = TitleChooser(
            backbone, writer, self.net.projected(), config.length, named=config.candidates > 0
        )
        chosen = [
            chooser.choose(seen.interactions.history(user), of_user, by)
            for user, of_user in zip(users.tolist(), candidates, strict=True)
        ]
        return np.array(chosen, dtype=np.int64)
