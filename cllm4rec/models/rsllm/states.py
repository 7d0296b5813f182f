"""States of histories, which C_user compares with items."""

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.histories import encode_by_length
from cllm4rec.models.rsllm.generation import Beginning
from cllm4rec.models.rsllm.net import RSLLMNet


@torch.no_grad()
def history_states(net: RSLLMNet, writer: PromptWriter, histories: Ragged, table: Tensor) -> Tensor:
    """States of histories, float32 (B, d); that of an empty one, or of one without room, is zero.

    What all prompts begin with is read once.

    Args:
        net: its normalised states at the last token of each history.
        writer: of the prompts.
        histories: items of B users, oldest first.
        table: P(e_j) of all items, (n_items, d).
    """
    backbone, n = net.backbone, writer.n_beginning(candidates=False)
    histories = writer.newest(histories, np.full(len(histories.lengths), backbone.context - n))
    beginning: Beginning | None = None

    def encode(rows: np.ndarray) -> Tensor:
        nonlocal beginning
        prompts, _ = writer.fill(histories.take(rows), backbone.context, asked=False)
        tokens, mask = (torch.from_numpy(array).to(table.device) for array in (prompts.tokens, prompts.mask))
        if n and beginning is None:
            beginning = Beginning.of(backbone, tokens[0, :n], table)
        cache = beginning.copies(len(rows)) if beginning else None
        hidden = backbone(tokens[:, n:], mask[:, n:], table, cache=cache)  # (b, L - n, d)
        row, column = np.divmod(prompts.query_index, tokens.shape[1])
        return net.norm(hidden[torch.from_numpy(row), torch.from_numpy(column - n)].float())

    return encode_by_length(net, writer.expand(histories).lengths, backbone.width, encode)
