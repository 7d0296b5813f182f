"""The network of CLLM4Rec: one backbone, two tables of ID embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.base import ExcludedItems
from cllm4rec.corpora.content import ContentBatch
from cllm4rec.corpora.history_batches import (
    CollaborativeBatch,
    HistoryPrompts,
    RecommendationBatch,
)
from cllm4rec.corpora.item_sampler import ItemSample
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.id_embeddings import IDEmbeddings, IDVectors
from cllm4rec.models.cllm4rec.linear_path import LinearPath
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.training.losses import SampledClasses, multinomial_nll, sampled_nll, squared_distance

CLLM4RecBatch = ContentBatch | CollaborativeBatch | RecommendationBatch
ROWS_AT_ONCE = 1 << 14  # of a table, when embeddings are compared


class CLLM4RecNet(nn.Module):
    """One backbone read through two tables of ID embeddings: collaborative z^l and content z^c.

    Where texts are read, the collaborative vector of an ID is z^l = e + t, at the input and in the softmax.
    Then `collaborative` holds e, which the mutual regularisation pulls together with z^c. After finetuning it
    may have a linear path, which takes no part in training.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: CLLM4RecConfig,
        n_users: int,
        n_items: int,
        user_text: TextEmbeddings | None = None,
        item_text: TextEmbeddings | None = None,
        linear: LinearPath | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.config, self.n_users = backbone, config, n_users
        self.user_text, self.item_text, self.linear = user_text, item_text, linear
        self.collaborative, self.content = (
            IDEmbeddings(n_users, n_items, backbone.width, sampled=config.sampled > 0) for _ in range(2)
        )

    def forward(self, objective: str, batch: CLLM4RecBatch) -> dict[str, Tensor]:
        """Loss terms, each a sum over the batch (CLLM4Rec, MAP objective): the NLL, mutual pull and prior."""
        match objective:
            case "content":
                assert isinstance(batch, ContentBatch)
                nll = self._content_nll(batch)
                table, other_table = self.content, self.collaborative
            case "collaborative":
                assert isinstance(batch, CollaborativeBatch)
                vectors = self.id_vectors()
                states = self._normalised(self._states_at(batch.state_index, batch, vectors))
                rows, items = _row_numbers(batch.target_items), batch.target_items
                nll = self._item_nll(vectors, states, rows, items, batch.sample)
                table, other_table = self.collaborative, self.content
            case "recommend":
                assert isinstance(batch, RecommendationBatch)
                vectors = self.id_vectors()
                states = self.user_states(batch, vectors=vectors)
                rows, items = batch.target_rows, batch.target_items
                nll = self._item_nll(vectors, states, rows, items, batch.sample, batch.excluded)
                table, other_table = self.collaborative, self.content
            case _:
                raise ValueError(
                    f"objective {objective!r} is unknown: CLLM4Rec has content, collaborative and recommend"
                )
        embeddings, weights = table[batch.ids], batch.id_weights  # (M, d), (M,)
        with torch.no_grad():
            centres = other_table[batch.ids]
        return {
            objective: nll,
            "mutual": self.config.mutual / 2 * squared_distance(embeddings, centres, weights),
            "prior": self.config.prior / 2 * squared_distance(embeddings, None, weights),
        }

    def id_vectors(self) -> IDVectors:
        """The collaborative vectors of users and items, with what their texts add."""
        return IDVectors(self.collaborative, self.item_text, self.user_text)

    def _states_at(
        self, index: Tensor, batch: ContentBatch | CollaborativeBatch, table: IDEmbeddings | IDVectors
    ) -> Tensor:
        """Causal states (T, d) at flat indices (T,)."""
        return self.backbone(batch.tokens, batch.mask, table).flatten(0, 1)[index]

    def _content_nll(self, batch: ContentBatch) -> Tensor:
        """NLL of the tokens of texts, by the softmax over the text tokens."""
        states, targets = self._states_at(batch.state_index, batch, self.content), batch.target_tokens
        return self.backbone.word_nll(states, targets)

    def _item_nll(
        self,
        vectors: IDVectors,
        states: Tensor,
        rows: Tensor,
        targets: Tensor,
        sample: ItemSample | None,
        excluded: ExcludedItems | None = None,
    ) -> Tensor:
        """NLL of items, by the softmax over all items or a sample.

        Args:
            vectors: of the items.
            states: (R, d).
            rows: (T,), the state of each target.
            targets: (T,), item numbers.
            sample: items of the softmax; None: all.
            excluded: items left out of the softmax of their states.
        """
        left_out: tuple[Tensor | None, Tensor | None] = (None, None)
        if excluded is not None:
            left_out = excluded.rows, excluded.items
        if sample is None:
            return multinomial_nll(states, vectors.items, rows, targets, *left_out)
        classes = SampledClasses(sample.items, vectors.of_items(sample.items), sample.log_p)
        positives = vectors.of_items(targets)
        return sampled_nll(states, classes, positives, rows, targets, sample.target_log_p, *left_out)

    def user_states(
        self, prompts: HistoryPrompts, finetuned: bool = True, vectors: IDVectors | None = None
    ) -> Tensor:
        """State of each history (B, d): the normalised mean of its items' states, or that of the last token.

        Args:
            prompts: of the histories.
            finetuned: False reads it as pretraining does: causally, at the last token.
            vectors: of the IDs, if they have been computed.
        """
        vectors = self.id_vectors() if vectors is None else vectors
        order_free = None
        if finetuned and self.config.bidirectional:
            is_item = torch.zeros_like(prompts.mask).flatten()
            is_item[prompts.item_index] = True
            order_free = is_item.view_as(prompts.mask)
        states = self.backbone(prompts.tokens, prompts.mask, vectors, order_free).flatten(0, 1)
        at_query = states[prompts.query_index]  # (B, d)
        if not (finetuned and self.config.pooled):
            return self._normalised(at_query)
        rows = prompts.item_rows  # (P,)
        of_items = states[prompts.item_index].float()  # (P, d)
        summed = of_items.new_zeros(at_query.shape).index_add(0, rows, of_items)  # (B, d)
        n_items = torch.bincount(rows, minlength=len(at_query))[:, None]
        mean = functional.layer_norm(summed / n_items.clamp(min=1), summed.shape[1:])
        return torch.where(n_items > 0, mean, self._normalised(at_query).float())

    def _normalised(self, states: Tensor) -> Tensor:
        """States (N, d) of a built-in backbone, which end with a norm; normalised ones of a pretrained one.

        The final norm of a pretrained model has weights for its own words: the states of Gemma are so wide
        that a softmax over new rows starts far from uniform.
        """
        return states if self.config.built_in else functional.layer_norm(states.float(), states.shape[1:])

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the two tables, those that read texts, and the trained ones of the backbone."""
        return {
            "z^l": [*self.collaborative.parameters()],
            "z^c": [*self.content.parameters()],
            "texts": [p for text in (self.user_text, self.item_text) if text for p in text.parameters()],
            "backbone": [p for p in self.backbone.parameters() if p.requires_grad],
        }

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Mean cosine between the two embeddings of an ID."""
        pairs = zip(self.collaborative.parameters(), self.content.parameters(), strict=True)
        # In blocks of rows: the cosines need no copy of a whole table.
        blocks = [
            block
            for pair in pairs
            for block in zip(*(table.split(ROWS_AT_ONCE) for table in pair), strict=True)
        ]
        cosines = torch.cat([torch.cosine_similarity(*block) for block in blocks])
        return {"cos(z^l, z^c)": float(cosines.mean())}


def _row_numbers(targets: Tensor) -> Tensor:
    """0 .. T-1: each target (T,) has a state."""
    return torch.arange(len(targets), device=targets.device)
