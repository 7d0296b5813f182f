"""The network of RSLLM, in which titles and ID embeddings meet."""

import torch
from torch import Tensor, nn

from cllm4rec.corpora.padding import Batch
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.training.losses import item_contrast, multinomial_nll, user_contrast


class RSLLMNet(nn.Module):
    """Backbone, table of ID embeddings e_j (n_items, d_s), and the projector P: d_s -> d into the backbone's input.

    P is two linear layers with a ReLU between. It starts as an isometry (x = relu(x) - relu(-x), turned into d), so that soft
    tokens are related as the embeddings of the sequential recommender are.
    """

    def __init__(self, backbone: Backbone, config: RSLLMConfig, embeddings: Tensor) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.items = nn.Parameter(embeddings.clone())
        n = embeddings.shape[1]
        inner, outer = nn.Linear(n, 2 * n), nn.Linear(2 * n, backbone.width)
        self.norm = nn.LayerNorm(backbone.width)
        turned = nn.init.orthogonal_(torch.empty(backbone.width, n))
        with torch.no_grad():
            inner.weight.copy_(torch.cat([torch.eye(n), -torch.eye(n)]))
            outer.weight.copy_(torch.cat([turned, -turned], dim=1))
            inner.bias.zero_()
            outer.bias.zero_()
        self.projector = nn.Sequential(inner, nn.ReLU(), outer)

    def projected(self, items: Tensor | None = None) -> Tensor:
        """P(e_j) of items (M,), or of all: (M, d)."""
        table: Tensor = self.projector(self.items if items is None else self.items[items])
        return table

    def forward(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        """Loss terms, each summed over the batch: of the answers' words, C_item and C_user."""
        config, contrasts = self.config, "items" in batch
        table = self.projected(batch["items"] if contrasts else batch["tokens"].new_zeros(1))
        raw = self.backbone(batch["tokens"], batch["mask"], table).flatten(0, 1)
        words = batch["words"] if contrasts else batch["targets"]
        terms = {
            objective: multinomial_nll(raw[batch["read"]], self.backbone.word_head, batch["rows"], words)
        }
        if not contrasts:
            return terms
        sample, groups = batch["sample"], batch["groups"]
        if config.beta:
            hard = batch["hard"][batch["targets_of"]] if batch["hard"].shape[1] else None
            states = self.norm(raw[batch["states"]])
            terms["C_user"] = config.beta * user_contrast(
                states, table, batch["targets"], sample, groups, hard
            )
        if config.alpha and len(batch["title_words"]):
            titles, titled = mean_states(raw, batch["title_words"], batch["title_rows"], batch["titled"])
            terms["C_item"] = config.alpha * item_contrast(
                self.norm(titles), table, titled, sample, groups, config.temperature
            )
        return terms

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the table, the projector and what is trained of the backbone."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        projectors = [*self.projector.parameters(), *self.norm.parameters()]
        return {"e": [self.items], "P": projectors, "backbone": backbone}

    def diagnostics(self) -> dict[str, float]:
        """Nothing further."""
        return {}


def mean_states(states: Tensor, places: Tensor, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Mean state over the words of each title (R, d), and the items (R,) that they name; items without words are left out.

    Args:
        states: (N, d).
        places: (W,) of the words.
        rows: (W,) ascending, which of `items` (P,) a word belongs to.
    """
    named, counts = torch.unique_consecutive(rows, return_counts=True)
    number = torch.repeat_interleave(torch.arange(len(named), device=rows.device), counts)
    summed = states.new_zeros(len(named), states.shape[1]).index_add(0, number, states[places])
    return summed / counts[:, None], items[named]
