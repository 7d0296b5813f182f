"""Backbone: any Hugging Face causal language model, frozen or tuned, that also reads user and item IDs."""

import hashlib
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from cllm4rec.models.language.adapters import add_adapters
from cllm4rec.models.language.attention import ATTENTION
from cllm4rec.models.language.pretrained import vocabulary_size

CONTEXT = 1024  # tokens: positions of the built-in backbones, and the longest example for any backbone


class EmbeddingLookup(Protocol):
    """An embedding table (n, d), or a module that is indexed like one."""

    def __getitem__(self, ids: Tensor, /) -> Tensor:
        """Embeddings (N, d) of IDs (N,)."""
        ...


class Backbone(nn.Module):
    """A decoder that reads text tokens and IDs and returns hidden states.

    ID embeddings have a standard deviation of about ID_EMBEDDING_STD for every backbone: they also serve as
    softmax weights, and one learning rate fits all. As inputs they are multiplied by `id_scale`, to the
    standard deviation of a pretrained backbone's token embeddings. Built-in backbones multiply both tables by
    sqrt(width).

    Attributes:
        model: the Hugging Face model.
        tuned: whether its weights are trained. If not, they stay bit-identical and in evaluation mode.
        adapted: whether low-rank adapters are trained on frozen weights (Hu et al., "LoRA", 2021).
        token_scale, id_scale: factors of the input embeddings of text tokens and of IDs.
    """

    def __init__(self, model: PreTrainedModel, tuning: str, token_scale: float, id_scale: float) -> None:
        super().__init__()
        self.tuned, self.adapted = tuning == "full", tuning == "lora"
        model.set_attn_implementation(ATTENTION)  # a model that cannot switch, such as Falcon, keeps its own
        self.model, self.token_scale, self.id_scale = model, token_scale, id_scale
        self.model.requires_grad_(self.tuned)
        if self.adapted:
            add_adapters(model)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode. Frozen weights stay in evaluation mode, or dropout would act on them."""
        return super().train(mode and self.tuned)

    @property
    def width(self) -> int:
        return int(self.token_embeddings.shape[1])

    @property
    def n_text_tokens(self) -> int:
        return vocabulary_size(self.model)

    @property
    def context(self) -> int:
        """Longest example, in tokens."""
        return min(CONTEXT, int(getattr(self.model.config, "max_position_embeddings", CONTEXT)))

    @property
    def multiplications_per_token(self) -> int:
        """Multiplications per token in the layers: the number of their weights, without embeddings."""
        base = self.model.base_model
        tables = sum(module.weight.numel() for module in base.modules() if isinstance(module, nn.Embedding))
        return sum(p.numel() for p in base.parameters()) - tables

    @property
    def token_embeddings(self) -> Tensor:
        """Input embeddings of the text tokens (n_text_tokens, d)."""
        return cast(Tensor, self.model.get_input_embeddings().weight)

    @property
    def output_embeddings(self) -> Tensor:
        """Output embeddings of the text tokens (n_text_tokens, d), often the same table."""
        return cast(Tensor, self.model.get_output_embeddings().weight)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        table: EmbeddingLookup,
        order_free: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Hidden states of the last layer (B, L, d).

        Args:
            tokens: int64 (B, L): text token w -> w, ID t -> n_text_tokens + t.
            mask: bool (B, L), True at tokens, False at padding, which is on the right and changes nothing.
            table: embeddings of the IDs.
            order_free: bool (B, L), True at the tokens of a set. If given, attention is bidirectional and the
                tokens of a set share one position: the states do not depend on its order. By default
                attention is causal.
            cache: keys and values of the tokens before these, without padding. It is extended.
        """
        is_id = tokens >= self.n_text_tokens  # (B, L)
        text = self.model.get_input_embeddings()(tokens.masked_fill(is_id, 0)) * self.token_scale  # (B, L, d)
        ids = table[tokens[is_id] - self.n_text_tokens] * self.id_scale  # (N, d)
        embedded = text.index_put((is_id,), ids.to(text.dtype))
        # None: the model's causal attention, which does not attend to padding on the right
        attention_mask = positions = None
        if order_free is not None:
            attention_mask = embedded.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)  # added to scores
            attention_mask = attention_mask[:, None, None, :]  # (B, 1, 1, L): the same for every query
            same_position = torch.zeros_like(order_free)
            same_position[:, 1:] = order_free[:, 1:] & order_free[:, :-1]
            positions = (~same_position).cumsum(1) - 1  # (B, L)
        return self.model.base_model(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def fingerprint(self) -> str:
        """SHA-256 of the weights without adapters."""
        digest = hashlib.sha256()
        weights = {
            name.replace(".base_layer", ""): tensor
            for name, tensor in self.model.state_dict().items()
            if ".lora_" not in name
        }
        for name, tensor in sorted(weights.items()):
            content = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            digest.update(name.encode() + content)
        return digest.hexdigest()
