"""A loaded model is asked whether this package reads words as the model itself does."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cllm4rec.models.language.backbone import Backbone

N_TOKENS = 8  # of the texts with which a model is asked
# Largest error by the norm: of the size of 1 where a model reads otherwise. Rounding is far below.
TOLERANCE, TOLERANCE_IN_BF16 = 1e-3, 0.25


def check_conforms(backbone: Backbone) -> None:
    """Refuse a model whose own logits differ from those that this package computes with its layers.

    A model that reads in both directions, or needs word tokens besides their embeddings, would silently be
    another model here.

    Args:
        backbone: with its weights, and without trained adapters.

    Raises:
        ValueError: the logits differ.
    """
    training = backbone.training
    no_ids = torch.zeros(1, backbone.width, device=backbone.token_embeddings.device)
    backbone.eval()
    try:
        check_logits(
            backbone.model,
            lambda tokens, mask: backbone.word_logits(backbone(tokens, mask, no_ids)[mask]),
        )
    finally:
        backbone.train(training)


@torch.no_grad()
def check_logits(model: PreTrainedModel, logits: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Refuse a model whose own logits differ from those that this package computes.

    Two texts are read, the second padded on the right. The model's own forward is given their mask.

    Args:
        model: with its weights, in evaluation mode.
        logits: gives float32 (T, n_words) for tokens (B, L) and their mask (B, L), which has T tokens.

    Raises:
        ValueError: the logits differ.
    """
    words = cast(Tensor, model.get_input_embeddings().weight)
    tokens = torch.linspace(0, len(words) - 1, 2 * N_TOKENS, device=words.device).long().view(2, -1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, N_TOKENS // 2 :] = False
    with torch.autocast(words.device.type, enabled=False):
        own: Tensor = model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).logits
        expected, found = own[mask].float(), logits(tokens, mask)
    spread = expected - expected.mean(1, keepdim=True)
    tolerance = TOLERANCE_IN_BF16 if words.dtype == torch.bfloat16 else TOLERANCE
    if not (found - expected).norm() <= tolerance * spread.norm():
        raise ValueError(
            f"{model.config.model_type} reads words otherwise than as embeddings from left to right, which "
            "this package needs"
        )
