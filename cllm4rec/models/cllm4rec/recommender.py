"""CLLM4Rec: a language model whose vocabulary holds users and items (arXiv 2311.01343)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import (
    CollaborativeCorpus,
    HistoryCorpusOptions,
    RecommendationCorpus,
    fill,
    prompt_batch,
)
from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.corpora.prompts import OF_CLLM4REC, Template, training_texts
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Shapes
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.initialisation import initial_id_embeddings
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.description import ModelDescription
from cllm4rec.models.language.backbone import build_backbone
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring


class CLLM4Rec(LanguageRecommender):
    """Mutually regularised pretraining, then finetuning of a multinomial head on masked histories.

    Scoring is one forward pass over the user's history; the softmax has the items of the catalogue and nothing else.
    """

    name = "cllm4rec"
    config_class = CLLM4RecConfig
    config: CLLM4RecConfig
    net: CLLM4RecNet

    def _build(self, train: Dataset, seed: int) -> CLLM4RecNet:
        reviews = train.interactions.reviews
        texts: Iterable[str] = training_texts(
            OF_CLLM4REC,
            train.item_texts | train.user_texts,
            [] if reviews is None else [t for t in reviews.to_list() if t],
        )
        backbone, words = build_backbone(self.config, texts, seed, folder=self.moved.get("backbone"))
        self._extend(words, backbone)
        net = CLLM4RecNet(backbone, self.config, train.n_users, train.n_items)
        with torch.no_grad():
            collaborative, content = initial_id_embeddings(
                self.config.start, backbone, self.tokenizer, train, seed
            )
            net.collaborative.fill(collaborative)
            net.content.fill(content)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> CLLM4RecNet:
        backbone = self._restored_backbone(folder, described, shapes)
        return CLLM4RecNet(backbone, self.config, len(self.user_ids), len(self.item_ids))

    def _options(self, seed: int) -> HistoryCorpusOptions:
        config = self.config
        shares = (config.user_dropping, config.mask_share)
        return HistoryCorpusOptions(
            self.net.backbone.context, config.order, *shares, config.targets, config.sampled, seed
        )

    def _objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = self._options(config.seed)
        collaborative = CollaborativeCorpus(train.interactions, self.tokenizer, options)
        budget = int(self.config.content_ratio * collaborative.lengths.sum() * min(1.0, self._work_ratio()))
        documents = content_documents(train, self.tokenizer) if budget else []
        content = (
            [Objective("content", ContentCorpus(documents, self.tokenizer, options, budget))]
            if documents
            else []
        )
        if stage == "pretrain":
            return [
                *content,
                Objective("collaborative", collaborative, self.config.content_warmup if content else 0),
            ]
        return [
            *content,
            Objective("recommend", RecommendationCorpus(train.interactions, self.tokenizer, options)),
        ]

    def _work_ratio(self) -> float:
        """Work of a collaborative token in that of a content token: multiplications of the layers and of the softmax."""
        backbone = self.net.backbone
        item, word = (
            backbone.work + n_classes * backbone.width for n_classes in (len(self.item_ids), backbone.n_words)
        )
        return item / word

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        finetuned = self.stage == "finetune"
        template = Template.compile("recommend" if finetuned else "collaborative", self.tokenizer)
        room = self.net.backbone.context - template.n_fixed
        items = seen.interactions.histories(users).last(room)
        states = torch.zeros(len(users), self.net.backbone.width, device=self.device)
        self.net.eval()
        for rows in batches_by_length(items.lengths + template.n_fixed, TOKENS_AT_ONCE):
            filled = fill(
                template, self.tokenizer, np.maximum(known[rows], 0), items.take(rows), known[rows] >= 0
            )
            batch = {name: t.to(self.device) for name, t in prompt_batch(self.tokenizer, *filled).items()}
            own = self.net.user_states(batch, finetuned)
            states[torch.from_numpy(rows)] = own.to(torch.float32)
        return states, self.net.collaborative.items.weight.detach()
