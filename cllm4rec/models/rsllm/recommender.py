"""RSLLM: behaviour as a language, titles and the ID embeddings of a sequential recommender in one prompt (arXiv 2412.16933)."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cllm4rec.corpora.base import as_tensors
from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.corpora.prompts import OF_RSLLM, training_texts
from cllm4rec.corpora.rsllm import AnswerCorpus, ContrastiveCorpus, RSLLMCorpusOptions
from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.tokenizer import end_token
from cllm4rec.data.candidates import title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.messages import shorten
from cllm4rec.models import load, system_class
from cllm4rec.models.base import REMEDY, Recommender, Shapes
from cllm4rec.models.description import ModelDescription
from cllm4rec.models.language.backbone import build_backbone
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.generation import generate, likelihoods
from cllm4rec.models.rsllm.net import RSLLMNet
from cllm4rec.models.sequential.base import SequentialRecommender
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring
CONVENTIONAL = ("sasrec", "gru4rec")  # systems whose ID embeddings can be taken


class RSLLM(LanguageRecommender):
    """First a conventional sequential recommender; stage 1 (`pretrain`): text-only prompts, the language-modelling loss of the
    answers; stage 2 (`finetune`): unified prompts, that loss + alpha C_item + beta C_user.

    Scores are the C_user scores: the state behind a history, by P(e_j) of every item, in one pass.
    """

    name = "rsllm"
    config_class = RSLLMConfig
    config: RSLLMConfig
    net: RSLLMNet
    validated_stages = ("finetune",)
    user_tokens = False
    sequential: SequentialRecommender
    _written: tuple[pl.DataFrame, RSLLMConfig, PromptWriter] | None = None

    @property
    def base_system(self) -> str | None:
        return self.config.sequential if self.config.sequential in CONVENTIONAL else None

    def check(self, train: Dataset) -> None:
        super().check(train)
        self._titles(train.item_texts.get("title"), train.n_items)
        if self.base_system is None and self.trained_base is None:
            self.trained_base = self._fitting(
                load(self.moved.get("sequential", self.config.sequential), train)
            )
        if self.config.candidates:
            self._check_candidates(train)

    def _check_words(self, words: PreTrainedTokenizerBase) -> None:
        end_token(words)  # of every answer

    def _check_candidates(self, train: Dataset) -> None:
        groups, events = title_groups(train.items), train.interactions
        n_groups = int(groups.max(initial=0)) + 1
        own = np.unique(events.users * n_groups + groups[events.items]) // n_groups
        left = len(np.unique(groups)) - np.bincount(own).max(initial=0)
        if self.config.candidates > left + 1:
            raise ValueError(
                f"--candidates {self.config.candidates}: of {train.n_items:,} items only {left:,} titles are left beside the "
                "longest history: name fewer"
            )

    def _before(
        self,
        train: Dataset,
        validation: Dataset | None,
        seen: Dataset | None,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        """Take the sequential recommender from its run, or train it here if it was not given.

        Raises:
            ValueError: the run is of another system, or of other data.
        """
        if self.trained_base is not None:
            self.sequential = self._fitting(self.trained_base)
        elif self.base_system is not None:
            self.sequential = self._fitting(system_class(self.base_system)())
            training = replace(self.sequential.config_class.training["pretrain"], seed=seed)
            self.sequential.fit(train, validation, training, accelerator=accelerator, seen=seen)
        else:
            self.sequential = self._fitting(load(self.config.sequential, train))

    def _fitting(self, found: Recommender) -> SequentialRecommender:
        if not isinstance(found, SequentialRecommender):
            raise ValueError(
                f"--sequential {self.config.sequential} is a run of {found.name}: it may be {' or '.join(CONVENTIONAL)}"
            )
        return found

    def _build(self, train: Dataset, seed: int) -> RSLLMNet:
        titles = self._titles(train.item_texts.get("title"), train.n_items)
        texts = training_texts(OF_RSLLM, {"title": titles})
        backbone, words = build_backbone(
            self.config, texts, seed, self.config.dropout, self.moved.get("backbone")
        )
        self._extend(words, backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = RSLLMNet(backbone, self.config, self.sequential.net.items.detach().cpu())
        with torch.no_grad():  # soft tokens begin as wide as words
            backbone.id_scale = (
                float(backbone.words.std()) * backbone.word_scale / float(net.projected().std())
            )
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> RSLLMNet:
        name = described.get("sequential")
        if name not in CONVENTIONAL:
            raise ValueError(
                f"{folder} is damaged (model.json: sequential is {shorten(repr(name))}): {REMEDY}"
            )
        self.sequential = self._fitting(system_class(name).load(folder / "sequential"))
        backbone = self._restored_backbone(folder, described, shapes)
        return RSLLMNet(backbone, self.config, self.sequential.net.items.detach().cpu())

    def _built_from(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, array in sorted(self.sequential._arrays().items()):
            digest.update(name.encode() + array.tobytes())
        return super()._built_from() | {"sequential": digest.hexdigest()}

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"sequential": self.sequential.name}

    def _write_description(self, folder: Path) -> None:
        super()._write_description(folder)
        (folder / "sequential").mkdir()
        self.sequential._write(folder / "sequential")

    def _titles(self, titles: list[str] | None, n_items: int) -> list[str]:
        """Titles of all items, "" for none.

        Raises:
            ValueError: no item has one, and the prompts need them.
        """
        if titles is None and self.config.prompt != "ids":
            raise ValueError(
                "rsllm reads titles, and the items have none: prepare with --items FILE, or take --prompt ids"
            )
        return [""] * n_items if titles is None else titles

    def writer(self, items: pl.DataFrame) -> PromptWriter:
        """Writes prompts about the items of a dataset's table."""
        if self._written is None or self._written[0] is not items or self._written[1] != self.config:
            titles = self._titles(
                items["title"].fill_null("").to_list() if "title" in items.columns else None, len(items)
            )
            writer = PromptWriter(self.tokenizer, titles, self.config.prompt, self.config.title_words)
            self._written = (items, self.config, writer)
        return self._written[2]

    def _objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        own, groups = self.config, title_groups(train.items)
        options = RSLLMCorpusOptions(
            self.net.backbone.context, own.length, own.candidates, own.negatives, config.seed
        )
        form = "text" if stage == "pretrain" else own.prompt
        titles = self._titles(train.item_texts.get("title"), train.n_items)
        writer = PromptWriter(self.tokenizer, titles, form, own.title_words)
        if stage == "pretrain":
            return [Objective("answer", AnswerCorpus(train.interactions, writer, groups, options))]
        return [
            Objective(
                "answer", ContrastiveCorpus(train.interactions, writer, groups, options, self._hard(train))
            )
        ]

    def _hard(self, train: Dataset) -> np.ndarray:
        """For each user the items that the sequential recommender ranks first among those not taken, int64 (n_users, H)."""
        n = (
            min(self.config.hard, train.n_items) if self.config.negatives < train.n_items else 0
        )  # else all are contrasted with
        hard = np.zeros((train.n_users, n), dtype=np.int64)
        users = np.flatnonzero(np.diff(train.interactions.indptr) > 0)
        if n:
            for part in self.sequential.recommend_batches(users, train, n):
                hard[part.users] = np.maximum(np.where(part.items >= 0, part.items, part.items[:, :1]), 0)
        return hard

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        writer, context = self.writer(seen.items), self.net.backbone.context
        items = seen.interactions.histories(users).last(self.config.length)
        tokens = np.bincount(items.rows, weights=writer.written.lengths[items.values], minlength=len(users))
        states = torch.zeros(len(users), self.net.backbone.width, device=self.device)
        self.net.eval()
        table = self.net.projected()
        for rows in batches_by_length(tokens.astype(np.int64) + 20, TOKENS_AT_ONCE):
            prompts, _ = writer.fill(items.take(rows), context, asked=False)
            batch = as_tensors(tokens=prompts.tokens, mask=prompts.mask, query=prompts.query)
            batch = {name: t.to(self.device) for name, t in batch.items()}
            own = self.net.backbone(batch["tokens"], batch["mask"], table).flatten(0, 1)[batch["query"]]
            states[torch.from_numpy(rows)] = self.net.norm(own).to(torch.float32)
        return states, table

    @torch.no_grad()
    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """As every system by scores, those of C_user; and in words: by `likelihood` of the candidates' titles (mean over the
        words), or by `generation` of one title, -1 where it is none of them."""
        if by == "scores":
            return super().choose(users, candidates, seen)
        writer, table = self.writer(seen.items), self.net.projected()
        if not len(writer.titles.values):
            raise ValueError(f"--by {by} answers with titles, and the items have none: choose by scores")
        self.net.eval()
        chosen = np.empty(len(users), dtype=np.int64)
        for row, user in enumerate(users):
            answers = [torch.from_numpy(answer) for answer in writer.answers_of(candidates[row])]
            history = Ragged.from_lists([seen.interactions.history(int(user))[-self.config.length :]])
            named = Ragged.from_lists([candidates[row]]) if self.config.candidates else None
            most = max(len(answer) for answer in answers)
            prompts, _ = writer.fill(history, self.net.backbone.context - most, named)
            prompt = torch.from_numpy(prompts.tokens[0]).to(self.device)
            if by == "likelihood":
                own = likelihoods(
                    self.net.backbone, prompt, [answer.to(self.device) for answer in answers], table
                )
                own[
                    torch.tensor([len(answer) == 1 for answer in answers])
                ] = -torch.inf  # no title: nothing to answer with
                chosen[row] = int(own.argmax()) if own.max() > -torch.inf else -1
            elif by == "generation":
                words = generate(self.net.backbone, prompt, self.tokenizer.end, most, table)
                chosen[row] = next(
                    (i for i, answer in enumerate(answers) if words and answer[:-1].tolist() == words), -1
                )
            else:
                raise ValueError(f"by is {by!r}: rsllm chooses by scores, likelihood or generation")
        return chosen
