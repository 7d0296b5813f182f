"""CLLM4Rec: a language model whose vocabulary holds users and items (arXiv 2311.01343)."""

import logging
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.history_batches import fill, prompt_batch
from cllm4rec.corpora.prompts import OF_CLLM4REC, Template, training_texts
from cllm4rec.corpora.tokenizer import without_unused_tokens
from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.adaptation import OldRows, adapted_texts, chosen_rows, nearest_known
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.initialisation import check_start, initial_id_embeddings
from cllm4rec.models.cllm4rec.linear_path import (
    LinearPath,
    add_linear_path,
    checked_path_model,
    no_path,
)
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.description import ModelDescription, Shapes
from cllm4rec.models.histories import encode_by_length
from cllm4rec.models.inner_product import LinearScores
from cllm4rec.models.item_vectors.sources import (
    TextSources,
    check_sources,
    item_sources,
    read_again_items,
    read_again_users,
    user_sources,
)
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings, words_of_row
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.language.loading import build_backbone, check_backbone
from cllm4rec.models.validation import shared_validation
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.objective import Objective
from cllm4rec.training.records import VALIDATION_METRIC

log = logging.getLogger("cllm4rec")
CLEARLY_BETTER = 1.05  # ratio of validation metrics; smaller differences are noise on small datasets


class CLLM4Rec(LanguageRecommender):
    """Mutually regularised pretraining, then finetuning of a multinomial head on masked histories.

    Scoring is one forward pass over the user's history; the softmax is over the items of the catalogue.
    """

    name = "cllm4rec"
    config_class = CLLM4RecConfig
    prompt_names = OF_CLLM4REC
    config: CLLM4RecConfig
    net: CLLM4RecNet
    path_ease: EASE | None = None  # to be fitted for the linear path, while finetuning

    def check(self, dataset: Dataset) -> None:
        check_start(self.config.start, dataset.train)
        check_sources(self.config, dataset, self._default_encoder)
        checked_path_model(self.config, dataset)
        super().check(dataset)

    def _build(self, train: Dataset, seed: int) -> CLLM4RecNet:
        if self.config.built_in:  # a pretrained backbone has its own vocabulary
            learns_from("the vocabulary", train.interactions)
        backbone, text_tokenizer = build_backbone(
            self.config, _texts(train), seed, folder=self.moved.get("backbone")
        )
        self._extend(text_tokenizer, backbone)
        return self._initial_net(backbone, train, seed)

    def _initial_net(self, backbone: Backbone, train: Dataset, seed: int) -> CLLM4RecNet:
        """A network with initial ID embeddings."""
        user_text = TextEmbeddings.of(self.config, user_sources(self.config, train), backbone.width)
        item_text = TextEmbeddings.of(self.config, self._item_sources(train), backbone.width)
        net = CLLM4RecNet(backbone, self.config, train.n_users, train.n_items, user_text, item_text)
        with torch.no_grad():
            collaborative, content = initial_id_embeddings(
                self.config.start, backbone, self.tokenizer, train, seed
            )
            net.collaborative.fill(collaborative)
            net.content.fill(content)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> CLLM4RecNet:
        backbone = self._restored_backbone(folder, described, shapes)
        user_text, item_text = (
            TextEmbeddings.of_shapes(self.config, shapes, prefix) for prefix in ("user_text.", "item_text.")
        )
        linear = LinearPath.of_shapes(shapes, "linear.")
        sizes = len(self.user_ids), len(self.item_ids)
        return CLLM4RecNet(backbone, self.config, *sizes, user_text, item_text, linear)

    def _start(
        self, dataset: Dataset, stage: str, config: TrainConfig | None, accelerator: Accelerator
    ) -> TrainConfig:
        ease = checked_path_model(self.config, dataset) if stage == "finetune" else None
        started = super()._start(dataset, stage, config, accelerator)
        self._learn_words(dataset.train)
        self.path_ease, self.net.linear = ease, None
        return started

    def _begin(
        self, dataset: Dataset, before: str | None, config: TrainConfig, accelerator: Accelerator
    ) -> float | None:
        if self._has_other_weights(dataset, before):
            return self._start_from_better(dataset, config.seed, accelerator)
        return super()._begin(dataset, before, config, accelerator)

    def _has_other_weights(self, dataset: Dataset, before: str | None) -> bool:
        follows = (before, self.stage) == ("pretrain", "finetune")
        return follows and self.config.may_start_anew and self._is_validated(dataset, "finetune")

    def _start_from_better(self, dataset: Dataset, seed: int, accelerator: Accelerator) -> float:
        """Take the initial weights, if they are clearly better on validation events than the pretrained.

        Returns:
            The validation metric of the weights that are taken.
        """
        pretrained, quality = self.net, [shared_validation(self, dataset, accelerator)]
        backbone = pretrained.backbone
        if self.config.built_in:
            backbone, _ = build_backbone(self.config, _texts(dataset.train), seed)
        self.net = self._initial_net(backbone, dataset.train, seed).to(accelerator.device)
        self._learn_words(dataset.train)
        quality.append(shared_validation(self, dataset, accelerator))
        measured = [("initial", quality[1]), ("pretrained", quality[0])]  # those that are taken first
        if quality[1] <= CLEARLY_BETTER * quality[0]:
            self.net = pretrained
            measured.reverse()
        (taken, metric), (other, other_metric) = measured
        if accelerator.is_main_process:
            text = "finetuning starts from the %s weights: validation %s %.4f, %s %.4f"
            log.info(text, taken, VALIDATION_METRIC, metric, other, other_metric)
        return metric

    def _learn_words(self, train: Dataset) -> None:
        """Learn the words of the IDs with training events."""
        if self.net.item_text is not None:
            self.net.item_text.train_on(train.interactions.item_has_event)
        if self.net.user_text is not None:
            self.net.user_text.train_on(np.diff(train.interactions.indptr) > 0)

    def _after(self, dataset: Dataset, stage: str, accelerator: Accelerator, hooks: Hooks) -> bool:
        ease, self.path_ease = self.path_ease, None
        if stage != "finetune":
            return False
        if ease is not None:
            return add_linear_path(self, ease, dataset, accelerator, hooks)
        if self.config.linear == "auto" and accelerator.is_main_process:
            log.info("no linear path: %s", no_path(self.config, dataset))
        return False

    def _item_sources(self, train: Dataset) -> TextSources:
        """What the texts of the items say. A pretrained backbone reads them if nothing else is named."""
        return item_sources(self.config, train, self._default_encoder)

    @property
    def _default_encoder(self) -> str | None:
        """What reads texts if nothing is named: the files of a pretrained backbone, at its revision."""
        if not self.config.reads_vectors:
            return None
        pretrained = check_backbone(self.config, self.moved.get("backbone"))
        return None if pretrained is None else str(pretrained.path)

    def _options(self, seed: int, finetuning: bool) -> HistoryCorpusOptions:
        config = self.config
        return HistoryCorpusOptions(
            context=self.net.backbone.context,
            order=config.order,
            user_dropping=config.user_dropping if config.reads_user_token(finetuning) else 1.0,
            mask_share=config.mask_share,
            targets=config.targets,
            sampled=config.sampled,
            seed=seed,
            template=config.list_template,
        )

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = self._options(config.seed, finetuning=False)
        content = self._content(train, options) if self.config.has_content_passes(stage) else []
        if stage == "pretrain":
            collaborative = CollaborativeCorpus(train.interactions, self.tokenizer, options)
            from_epoch = self.config.content_warmup if content else 0
            return [*content, Objective("collaborative", collaborative, from_epoch)]
        options = self._options(config.seed, finetuning=True)
        recommendation = RecommendationCorpus(train.interactions, self.tokenizer, options)
        return [*content, Objective("recommend", recommendation)]

    def _content(self, train: Dataset, options: HistoryCorpusOptions) -> list[Objective]:
        """The content passes; none where there is no document, or no token for one."""
        n_collaborative = CollaborativeCorpus(train.interactions, self.tokenizer, options).lengths.sum()
        tokens_per_pass = int(self.config.content_ratio * n_collaborative * min(1.0, self._work_ratio()))
        documents = content_documents(train, self.tokenizer) if tokens_per_pass else []
        if not documents:
            return []
        return [Objective("content", ContentCorpus(documents, self.tokenizer, options, tokens_per_pass))]

    def _work_ratio(self) -> float:
        """Multiplications of a collaborative token / those of a content token, in layers and softmax."""
        backbone = self.net.backbone
        collaborative, content = (
            backbone.multiplications_per_token + n_classes * backbone.width
            for n_classes in (len(self.item_ids), backbone.n_text_tokens)
        )
        return collaborative / content

    def _linear(self, users: np.ndarray, seen: Dataset) -> LinearScores | None:
        linear = self.net.linear
        if linear is None or self.stage != "finetune":
            return None
        return linear.scores(users, seen.interactions)

    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        return self._kept_vectors(users, lambda: self._encode(users, trained_users, seen))

    @torch.no_grad()
    def _encode(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        finetuned, tokenizer = self.stage == "finetune", self.tokenizer
        template = Template.compile(self.config.list_template if finetuned else "collaborative", tokenizer)
        items = seen.interactions.histories(users).last(self.net.backbone.context - template.n_fixed)
        vectors = self.net.id_vectors()

        def encode(rows: np.ndarray) -> Tensor:
            numbers = trained_users[rows]
            named = self.config.reads_user_token(finetuned) | (items.take(rows).lengths == 0)
            known = (numbers >= 0) & named
            filled = fill(template, tokenizer, np.maximum(numbers, 0), items.take(rows), known)
            return self.net.user_states(prompt_batch(tokenizer, *filled).to(self.device), finetuned, vectors)

        states = encode_by_length(self.net, items.lengths + template.n_fixed, self.net.backbone.width, encode)
        return states, vectors.items.detach()

    def _item_vectors(self) -> Tensor:
        return self.net.eval().id_vectors().items

    @property
    def _item_texts(self) -> TextEmbeddings | None:
        return self.net.item_text

    def _adapt(self, dataset: Dataset, rows: OldRows) -> None:
        old, config, train = self.net, self.config, dataset.train

        def users(before: TextSources) -> TextSources:
            return read_again_users(train, before, rows.users < 0)

        def items(before: TextSources) -> TextSources:
            return read_again_items(config, train, before, rows.reread, self._default_encoder)

        read_users = users if (rows.users < 0).any() else None
        read_items = items if rows.reread.any() else None
        backbone, text_tokenizer = deepcopy(old.backbone), self.tokenizer.text_tokenizer
        if config.built_in and rows.lost_users:  # their words are forgotten too
            text_tokenizer = without_unused_tokens(text_tokenizer, _texts(train))
        self._extend(text_tokenizer, backbone)
        net = CLLM4RecNet(
            backbone,
            config,
            dataset.n_users,
            dataset.n_items,
            adapted_texts(old.user_text, config, rows.users, read_users, rows.lost_users),
            adapted_texts(old.item_text, config, rows.items, read_items, rows.lost_reviews),
        )
        for table, before in ((net.collaborative, old.collaborative), (net.content, old.content)):
            table.users.weight.data = chosen_rows(before.users.weight, rows.users)
            table.items.weight.data = chosen_rows(before.items.weight, rows.items)
        self.net = net.to(self.device).eval()
        if old.linear is not None:
            new = rows.items < 0
            has_event = ~new if net.item_text is None else net.item_text.in_training.numpy(force=True) > 0
            shares = nearest_known(self.item_vectors(), rows.items, has_event & ~new)
            net.linear = old.linear.among(shares, new).to(self.device)

    @torch.no_grad()
    def _words_of_item(self, item: int) -> tuple[list[str], Tensor]:
        return words_of_row(self.net.item_text, item)


def _texts(train: Dataset) -> Iterable[str]:
    """What the tokenizer of a built-in backbone is trained on."""
    reviews = train.interactions.reviews
    written = [] if reviews is None else [text for text in reviews.to_list() if text]
    texts: Iterable[str] = training_texts(OF_CLLM4REC, train.item_texts | train.user_texts, written)
    return texts
