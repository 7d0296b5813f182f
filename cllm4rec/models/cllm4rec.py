"""CLLM4Rec: a language model whose vocabulary holds users and items (arXiv 2311.01343)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.backbone import Backbone, build_backbone
from cllm4rec.models.base import Shapes
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.models.description import ModelDescription
from cllm4rec.models.language import LanguageRecommender
from cllm4rec.models.starts import starting_tables
from cllm4rec.models.tables import IDTable
from cllm4rec.text.content import ContentCorpus, content_documents
from cllm4rec.text.histories import (
    CollaborativeCorpus,
    HistoryOptions,
    RecommendationCorpus,
    fill,
    prompt_batch,
)
from cllm4rec.text.prompts import OF_CLLM4REC, Template, training_texts
from cllm4rec.text.ragged import Ragged, batches_by_length
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Objective
from cllm4rec.training.losses import DrawnClasses, multinomial_nll, pull, sampled_nll

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring


class CLLM4RecNet(nn.Module):
    """One backbone read through two tables of ID embeddings: collaborative z^l and content z^c."""

    def __init__(self, backbone: Backbone, config: CLLM4RecConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.backbone, self.config, self.n_users = backbone, config, n_users
        self.collaborative, self.content = (
            IDTable(n_users, n_items, backbone.width, sampled=config.sampled > 0) for _ in range(2)
        )

    def forward(self, objective: str, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms, each a sum over the batch: the NLL, the mutual pull and the prior (CLLM4Rec, MAP objective)."""
        table, other = self.collaborative, self.content
        if objective == "content":
            table, other = other, table
        if objective == "recommend":
            states = self.user_states(batch)
        else:
            states = self.backbone(batch["tokens"], batch["mask"], table).flatten(0, 1)[batch["read"]]
        rows, targets, shown = batch["rows"], batch["targets"], (batch.get("shown_rows"), batch.get("shown"))
        if "sample" in batch:
            known = DrawnClasses(batch["sample"], table.items(batch["sample"]), batch["sample_log_p"])
            nll = sampled_nll(states, known, table.items(targets), rows, targets, batch["targets_log_p"], *shown)
        else:
            classes = self.backbone.word_head if objective == "content" else table.items.weight
            nll = multinomial_nll(states, classes, rows, targets, *shown)
        own, weights = table[batch["ids"]], batch["weights"]
        with torch.no_grad():
            centres = other[batch["ids"]]
        return {
            objective: nll,
            "mutual": self.config.mutual / 2 * pull(own, centres, weights),
            "prior": self.config.prior / 2 * pull(own, None, weights),
        }

    def user_states(self, batch: dict[str, Tensor], finetuned: bool = True) -> Tensor:
        """State of each history (B, d): the normalised mean of the item tokens' states, or the last token's state.

        `finetuned` False reads it as pretraining does: causally, at the last token.
        """
        order_free = None
        if finetuned and self.config.bidirectional:
            order_free = torch.zeros_like(batch["mask"]).flatten()
            order_free[batch["pool"]] = True
            order_free = order_free.view_as(batch["mask"])
        states = self.backbone(batch["tokens"], batch["mask"], self.collaborative, order_free).flatten(0, 1)
        at_query = states[batch["query"]]  # (B, d)
        if not (finetuned and self.config.pooled):
            return at_query
        summed = torch.zeros_like(at_query).index_add(0, batch["pool_rows"], states[batch["pool"]])
        n = torch.bincount(batch["pool_rows"], minlength=len(at_query))[:, None]
        mean = functional.layer_norm(summed / n.clamp(min=1), summed.shape[1:])
        return torch.where(n > 0, mean, at_query)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the two tables and, where it is tuned, the backbone."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        return {"z^l": [*self.collaborative.parameters()], "z^c": [*self.content.parameters()], "backbone": backbone}

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Mean cosine between the two embeddings of an ID."""
        pairs = zip(self.collaborative.parameters(), self.content.parameters(), strict=True)
        blocks = [block for pair in pairs for block in zip(*(side.split(1 << 14) for side in pair), strict=True)]
        cosines = torch.cat([torch.cosine_similarity(*block) for block in blocks])
        return {"cos(z^l, z^c)": float(cosines.mean())}


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
            OF_CLLM4REC, train.item_texts | train.user_texts, [] if reviews is None else [t for t in reviews.to_list() if t]
        )
        backbone, words = build_backbone(self.config, texts, seed, folder=self.moved.get("backbone"))
        self._extend(words, backbone)
        net = CLLM4RecNet(backbone, self.config, train.n_users, train.n_items)
        with torch.no_grad():
            collaborative, content = starting_tables(self.config.start, backbone, self.tokenizer, train, seed)
            net.collaborative.fill(collaborative)
            net.content.fill(content)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> CLLM4RecNet:
        backbone = self._restored_backbone(folder, described, shapes)
        return CLLM4RecNet(backbone, self.config, len(self.user_ids), len(self.item_ids))

    def _options(self, seed: int) -> HistoryOptions:
        config = self.config
        shares = (config.user_dropping, config.mask_share)
        return HistoryOptions(self.net.backbone.context, config.order, *shares, config.targets, config.sampled, seed)

    def _objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = self._options(config.seed)
        collaborative = CollaborativeCorpus(train.interactions, self.tokenizer, options)
        budget = int(self.config.content_ratio * collaborative.lengths.sum() * min(1.0, self._work_ratio()))
        documents = content_documents(train, self.tokenizer) if budget else []
        content = [Objective("content", ContentCorpus(documents, self.tokenizer, options, budget))] if documents else []
        if stage == "pretrain":
            return [*content, Objective("collaborative", collaborative, self.config.content_warmup if content else 0)]
        return [*content, Objective("recommend", RecommendationCorpus(train.interactions, self.tokenizer, options))]

    def _work_ratio(self) -> float:
        """Work of a collaborative token in that of a content token: multiplications of the layers and of the softmax."""
        backbone = self.net.backbone
        item, word = (backbone.work + n_classes * backbone.width for n_classes in (len(self.item_ids), backbone.n_words))
        return item / word

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        finetuned = self.stage == "finetune"
        template = Template.compile("recommend" if finetuned else "collaborative", self.tokenizer)
        room = self.net.backbone.context - template.n_fixed
        events, lengths = seen.interactions.histories(users)
        items = Ragged(seen.interactions.items[events], lengths).last(room)
        states = torch.zeros(len(users), self.net.backbone.width, device=self.device)
        self.net.eval()
        for rows in batches_by_length(items.lengths + template.n_fixed, TOKENS_AT_ONCE):
            filled = fill(template, self.tokenizer, np.maximum(known[rows], 0), items.take(rows), known[rows] >= 0)
            batch = {name: t.to(self.device) for name, t in prompt_batch(self.tokenizer, *filled).items()}
            own = self.net.user_states(batch, finetuned)
            states[torch.from_numpy(rows)] = own.to(torch.float32)
        return states, self.net.collaborative.items.weight.detach()
