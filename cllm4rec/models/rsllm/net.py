"""The network of RSLLM: titles as tokens, and ID embeddings projected into the backbone's input."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.rsllm import AnswerBatch, ContrastiveBatch
from cllm4rec.models.language.backbone import Backbone, EmbeddingLookup
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.projector import ProjectedItems, Projector
from cllm4rec.models.rsllm.sequential_score import SequentialScore
from cllm4rec.training.losses import contrast


class RSLLMNet(nn.Module):
    """Backbone, ID embeddings e_j (n_items, d_s), and the projector P: d_s -> d into the backbone's input.

    Attributes:
        sequential_score: added to the score of C_user; None until its weight is fitted.
    """

    sequential_score: SequentialScore | None

    def __init__(self, backbone: Backbone, config: RSLLMConfig, embeddings: Tensor) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.sequential_score = None
        self.items = nn.Parameter(embeddings.clone())
        self.norm = nn.LayerNorm(backbone.width)
        self.projector = Projector(embeddings.shape[1], backbone.width)

    def projected(self, items: Tensor | None = None) -> Tensor:
        """P(e_j), (M, d), of items (M,) or of all items."""
        projected: Tensor = self.projector(self.items if items is None else self.items[items])
        return projected

    def forward(self, objective: str, batch: AnswerBatch) -> dict[str, Tensor]:
        """Loss terms, each a sum over the batch.

        Args:
            objective: "text" (stage 1): the NLL of the answers; "unified" (stage 2): also C_item and C_user.
            batch: of this objective.
        """
        match objective:
            case "text":
                # The prompts have no soft token: any item will do. Its gradient is zero: the optimiser and
                # all processes expect one, except where a frozen backbone leaves nothing to train.
                projected = self.projected(batch.tokens.new_zeros(1))
                nll, _ = self._answer_nll(batch, projected)
                return {objective: nll + 0.0 * projected.sum() if nll.requires_grad else nll}
            case "unified":
                assert isinstance(batch, ContrastiveBatch)
                items = self.projector.factored(self.items[batch.items])
                nll, hidden = self._answer_nll(batch, items)
                return {objective: nll, **self._contrasts(batch, hidden, items)}
        raise ValueError(f"objective {objective!r} is unknown: RSLLM has text and unified")

    def _answer_nll(self, batch: AnswerBatch, projected: EmbeddingLookup) -> tuple[Tensor, Tensor]:
        """The NLL of the answers, and all states (B * L, d)."""
        hidden = self.backbone(batch.tokens, batch.mask, projected).flatten(0, 1)
        states, targets = hidden[batch.state_index], batch.target_tokens  # (T, d), (T,)
        return self.backbone.word_nll(states, targets), hidden

    def _contrasts(
        self, batch: ContrastiveBatch, hidden: Tensor, projected: ProjectedItems
    ) -> dict[str, Tensor]:
        """The contrastive losses, times alpha and beta; a loss of weight 0 is left out.

        C_user: the state of a history against P(e_j) of its next item, by inner product. C_item: the mean
        state over an item's title against P(e_j) of the item, by cosine over the temperature.

        Args:
            batch: its indices local_ are those of `projected`.
            hidden: (B * L, d) states.
            projected: P(e_j) of the M items of the batch.
        """
        config, terms = self.config, {}
        if config.beta:
            hard = batch.local_hard[batch.history_rows] if batch.local_hard.shape[1] else None  # (R, H)
            states = projected.of_states(self.norm(hidden[batch.history_index].float()))
            states = states[:, :-1]  # s . b is the same for all items: it does not change their softmax
            terms["C_user"] = config.beta * contrast(
                states, projected.hidden, batch.local_targets, batch.local_sample, batch.groups, hard
            )
        if config.alpha and len(batch.title_index):
            titles, items = mean_states(hidden, batch.title_index, batch.title_rows, batch.local_history)
            titles = functional.normalize(self.norm(titles), dim=-1) / config.temperature
            states = projected.of_states(titles)
            terms["C_item"] = config.alpha * contrast(
                states, projected.directions(), items, batch.local_sample, batch.groups
            )
        return terms

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: ID embeddings, the projector, and the trained ones of the backbone."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        projectors = [*self.projector.parameters(), *self.norm.parameters()]
        return {"e": [self.items], "P": projectors, "backbone": backbone}

    def diagnostics(self) -> dict[str, float]:
        """No further values."""
        return {}


def mean_states(
    hidden: Tensor, title_index: Tensor, title_rows: Tensor, items: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean state over the tokens of each title. Items without title tokens are left out.

    Args:
        hidden: (N, d) states.
        title_index: (W,) of the title tokens, among the states.
        title_rows: (W,) ascending, the item (of P) that each title token belongs to.
        items: (P,).

    Returns:
        Mean states, float32 (R, d), and the item (R,) of each.
    """
    titled, counts = torch.unique_consecutive(title_rows, return_counts=True)  # (R,)
    title = torch.repeat_interleave(torch.arange(len(titled), device=title_rows.device), counts)  # (W,)
    of_tokens = hidden[title_index].float()  # (W, d)
    summed = of_tokens.new_zeros(len(titled), hidden.shape[1]).index_add(0, title, of_tokens)
    return summed / counts[:, None], items[titled]
