"""The network of CLLM4Rec: one backbone, two tables of ID embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.id_embeddings import IDEmbeddings
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.training.losses import DrawnClasses, multinomial_nll, pull, sampled_nll


class CLLM4RecNet(nn.Module):
    """One backbone read through two tables of ID embeddings: collaborative z^l and content z^c."""

    def __init__(self, backbone: Backbone, config: CLLM4RecConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.backbone, self.config, self.n_users = backbone, config, n_users
        self.collaborative, self.content = (
            IDEmbeddings(n_users, n_items, backbone.width, sampled=config.sampled > 0) for _ in range(2)
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
            nll = sampled_nll(
                states, known, table.items(targets), rows, targets, batch["targets_log_p"], *shown
            )
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
        return {
            "z^l": [*self.collaborative.parameters()],
            "z^c": [*self.content.parameters()],
            "backbone": backbone,
        }

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Mean cosine between the two embeddings of an ID."""
        pairs = zip(self.collaborative.parameters(), self.content.parameters(), strict=True)
        blocks = [
            block for pair in pairs for block in zip(*(side.split(1 << 14) for side in pair), strict=True)
        ]
        cosines = torch.cat([torch.cosine_similarity(*block) for block in blocks])
        return {"cos(z^l, z^c)": float(cosines.mean())}
