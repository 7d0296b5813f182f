"""A loaded model is asked whether this package reads words as the model itself does."""

import torch
from torch import Tensor

from cllm4rec.models.language.backbone import Backbone

N_TOKENS = 8  # of the texts with which a model is asked
# Largest error by the norm: of the size of 1 where a model reads otherwise. Rounding is far below.
TOLERANCE, TOLERANCE_IN_BF16 = 1e-3, 0.25


@torch.no_grad()
def check_conforms(backbone: Backbone) -> None:
    """Refuse a model whose own logits differ from those that this package computes with its layers.

    Two texts are read, the second padded on the right. A model that reads in both directions, or needs its
    word tokens beside their embeddings, would silently be another model here.

    Args:
        backbone: with its weights, and without trained adapters.

    Raises:
        ValueError: the logits differ.
    """
    model, training = backbone.model, backbone.training
    device = backbone.token_embeddings.device
    tokens = torch.linspace(0, backbone.n_text_tokens - 1, 2 * N_TOKENS, device=device).long().view(2, -1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, N_TOKENS // 2 :] = False
    no_ids = torch.zeros(1, backbone.width, device=device)
    backbone.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            own: Tensor = model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).logits
            expected = own[mask].float()
            found = backbone.word_logits(backbone(tokens, mask, no_ids)[mask])
    finally:
        backbone.train(training)
    spread = expected - expected.mean(1, keepdim=True)
    tolerance = TOLERANCE_IN_BF16 if backbone.dtype == torch.bfloat16 else TOLERANCE
    if not (found - expected).norm() <= tolerance * spread.norm():
        raise ValueError(
            f"{model.config.model_type} reads words otherwise than as embeddings from left to right, which "
            "this package needs"
        )
