"""CLLM4Rec: a language model whose vocabulary holds users and items (arXiv 2311.01343)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.history_batches import fill, prompt_batch
from cllm4rec.corpora.prompts import OF_CLLM4REC, Template, training_texts
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.initialisation import check_start, initial_id_embeddings
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.description import ModelDescription, Shapes
from cllm4rec.models.histories import encode_by_length
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.language.loading import build_backbone
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective


class CLLM4Rec(LanguageRecommender):
    """Mutually regularised pretraining, then finetuning of a multinomial head on masked histories.

    Scoring is one forward pass over the user's history; the softmax is over the items of the catalogue.
    """

    name = "cllm4rec"
    config_class = CLLM4RecConfig
    prompt_names = OF_CLLM4REC
    config: CLLM4RecConfig
    net: CLLM4RecNet

    def check(self, dataset: Dataset) -> None:
        check_start(self.config.start, dataset.train)
        super().check(dataset)

    def _build(self, train: Dataset, seed: int) -> CLLM4RecNet:
        reviews = train.interactions.reviews
        texts: Iterable[str] = training_texts(
            OF_CLLM4REC,
            train.item_texts | train.user_texts,
            [] if reviews is None else [text for text in reviews.to_list() if text],
        )
        backbone, text_tokenizer = build_backbone(self.config, texts, seed, folder=self.moved.get("backbone"))
        self._extend(text_tokenizer, backbone)
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
        return HistoryCorpusOptions(
            context=self.net.backbone.context,
            order=config.order,
            user_dropping=config.user_dropping,
            mask_share=config.mask_share,
            targets=config.targets,
            sampled=config.sampled,
            seed=seed,
        )

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = self._options(config.seed)
        collaborative = CollaborativeCorpus(train.interactions, self.tokenizer, options)
        n_collaborative = collaborative.lengths.sum()
        tokens_per_pass = int(self.config.content_ratio * n_collaborative * min(1.0, self._work_ratio()))
        documents = content_documents(train, self.tokenizer) if tokens_per_pass else []
        content = []
        if documents:
            corpus = ContentCorpus(documents, self.tokenizer, options, tokens_per_pass)
            content = [Objective("content", corpus)]
        if stage == "pretrain":
            from_epoch = self.config.content_warmup if content else 0
            return [*content, Objective("collaborative", collaborative, from_epoch)]
        recommendation = RecommendationCorpus(train.interactions, self.tokenizer, options)
        return [*content, Objective("recommend", recommendation)]

    def _work_ratio(self) -> float:
        """Multiplications of a collaborative token / those of a content token, in layers and softmax."""
        backbone = self.net.backbone
        collaborative, content = (
            backbone.multiplications_per_token + n_classes * backbone.width
            for n_classes in (len(self.item_ids), backbone.n_text_tokens)
        )
        return collaborative / content

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        finetuned, tokenizer = self.stage == "finetune", self.tokenizer
        template = Template.compile("recommend" if finetuned else "collaborative", tokenizer)
        items = seen.interactions.histories(users).last(self.net.backbone.context - template.n_fixed)

        def encode(rows: np.ndarray) -> Tensor:
            numbers = trained_users[rows]
            filled = fill(template, tokenizer, np.maximum(numbers, 0), items.take(rows), numbers >= 0)
            return self.net.user_states(prompt_batch(tokenizer, *filled).to(self.device), finetuned)

        states = encode_by_length(self.net, items.lengths + template.n_fixed, self.net.backbone.width, encode)
        return states, self.net.collaborative.items.weight.detach()
