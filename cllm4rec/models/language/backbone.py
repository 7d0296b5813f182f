"""Backbone: any Hugging Face causal language model, frozen or tuned, that also reads user and item IDs."""

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from cllm4rec.files.memory import out_of_memory
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.language.adapters import add_adapters
from cllm4rec.models.language.architecture import NO_SETS, cache_argument, takes_positions
from cllm4rec.models.language.attention import use_fused_attention
from cllm4rec.models.language.fingerprints import weights_sha256
from cllm4rec.models.language.head import WordHead, embedding_factor, output_layer
from cllm4rec.models.language.pretrained import vocabulary_size
from cllm4rec.training.allocator import limit_kernel_caches
from cllm4rec.training.losses import multinomial_nll

CONTEXT = 1024  # tokens: positions of the built-in backbones, and the longest example for any backbone
SET_SIZE = 8  # IDs with which a model is asked whether it reads their order
ROWS_AT_ONCE = 1 << 14  # of the word table, where it is held in bfloat16
# names of the number of positions in configurations; MPT has the second
POSITIONS = ("max_position_embeddings", "max_seq_len")


class EmbeddingLookup(Protocol):
    """An embedding table (n, d), or what is indexed like one."""

    def __getitem__(self, ids: Tensor, /) -> Tensor:
        """Embeddings (N, d) of IDs (N,)."""
        ...


class Backbone(nn.Module):
    """A decoder that reads text tokens and IDs and returns hidden states.

    ID embeddings have a standard deviation of about ID_EMBEDDING_STD for every backbone: they also serve as
    softmax weights, and one learning rate fits all. As inputs they are multiplied by `id_scale`, to the
    standard deviation of a pretrained backbone's words as they enter it. Built-in backbones multiply both
    tables by sqrt(width).

    Attributes:
        model: the Hugging Face model.
        tuned: whether its weights are trained. If not, they stay bit-identical and in evaluation mode.
        adapted: whether low-rank adapters are trained on frozen weights (Hu et al., "LoRA", 2021).
        token_scale: factor of the embeddings of text tokens, after that of the model's own embedding module.
        id_scale: factor of the input embeddings of IDs.
        head: what the model makes of products with its output embeddings.
        stored_sha256: of the weights in the files of a pretrained model, whatever dtype they are held in.
        commit: of its repository at the hub, if it comes from there.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tuning: str,
        token_scale: float,
        id_scale: float | None = None,
        stored_sha256: str | None = None,
        commit: str | None = None,
    ) -> None:
        """A backbone on a model.

        Args:
            model: with its weights, or to be given them later.
            tuning: frozen, lora or full.
            token_scale: see the attributes.
            id_scale: see the attributes. None: that of rows with the standard deviation ID_EMBEDDING_STD.
            stored_sha256, commit: see the attributes.

        Raises:
            ValueError: the model makes something unknown of embeddings or logits, or the embedding table is
                constant or not finite.
        """
        super().__init__()
        limit_kernel_caches()
        self.stored_sha256, self.commit = stored_sha256, commit
        self.tuned, self.adapted = tuning == "full", tuning == "lora"
        self.head, self.embedding_factor = WordHead.of(model), embedding_factor(model)
        use_fused_attention(model)
        self.model, self.token_scale = model, token_scale
        self.id_scale = self.id_scale_for(ID_EMBEDDING_STD) if id_scale is None else id_scale
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
    def dtype(self) -> torch.dtype:
        """Dtype in which its weights are held; trained adapters are float32."""
        return self.token_embeddings.dtype

    @property
    def n_text_tokens(self) -> int:
        return vocabulary_size(self.model)

    @property
    def context(self) -> int:
        """Longest example, in tokens."""
        return context_of(self.model.config)

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
        return output_layer(self.model).weight

    def word_logits(self, states: Tensor) -> Tensor:
        """The model's logits of the text tokens, float32 (..., n_text_tokens), from states (..., d)."""
        layer = output_layer(self.model)
        return self.head.logits(layer(states.to(layer.weight.dtype)).float())

    def word_nll(self, states: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of text tokens, summed: a float32 scalar.

        Neither all logits nor a copy of the output embeddings are made.

        Args:
            states: (T, d).
            targets: (T,), the text token of each state.
        """
        layer, scale = output_layer(self.model), self.head.scale
        states = states.to(layer.weight.dtype)
        states = states if scale == 1.0 else states * scale
        bias = None if layer.bias is None else layer.bias * scale
        rows = torch.arange(len(targets), device=targets.device)
        return multinomial_nll(states, layer.weight, rows, targets, bias=bias, softcap=self.head.softcap)

    @torch.no_grad()
    def id_scale_for(self, std: float) -> float:
        """The `id_scale` with which rows enter the model with the standard deviation of word embeddings.

        Args:
            std: standard deviation of the rows.

        Raises:
            ValueError: the embedding table is constant or not finite.
        """
        table = self.token_embeddings
        if table.dtype == torch.float32:
            of_words = float(table.std())
        else:  # no float32 copy of the whole table
            total = squares = 0.0
            for block in map(Tensor.float, table.split(ROWS_AT_ONCE)):
                total, squares = total + float(block.sum()), squares + float(block.square().sum())
            of_words = max(squares / table.numel() - (total / table.numel()) ** 2, 0.0) ** 0.5
        if not 0 < of_words < float("inf"):
            raise ValueError("its embedding table is constant or not finite")
        return of_words * self.embedding_factor * self.token_scale / std

    def as_ids(self, embeddings: Tensor) -> Tensor:
        """Rows (N, d) of an ID table that enter the model as these rows (N, d) of the word table do."""
        return embeddings * self.embedding_factor * self.token_scale / self.id_scale

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
        embedded = self.model.get_input_embeddings()(tokens.masked_fill(is_id, 0)) * self.token_scale
        numbers = tokens[is_id] - self.n_text_tokens  # (N,)
        if len(numbers):  # else no gradient passes the layers of a frozen model
            ids = table[numbers] * self.id_scale  # (N, d)
            embedded = embedded.index_put((is_id,), ids.to(embedded.dtype))  # (B, L, d)
        # None: the model's causal attention, which does not attend to padding on the right
        attention_mask: Tensor | None = None
        further: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            further[str(cache_argument(self.model))] = cache
        if order_free is not None:
            attention_mask = embedded.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)  # added to scores
            attention_mask = attention_mask[:, None, None, :]  # (B, 1, 1, L): the same for every query
            same_position = torch.zeros_like(order_free)
            same_position[:, 1:] = order_free[:, 1:] & order_free[:, :-1]
            further["position_ids"] = (~same_position).cumsum(1) - 1  # (B, L)
        return self.model.base_model(
            inputs_embeds=embedded, attention_mask=attention_mask, **further
        ).last_hidden_state

    @torch.no_grad()
    def reads_sets(self) -> bool:
        """Whether `order_free` tokens are read without their order: the model is asked with two orders.

        ALiBi and convolutions use the order even without positions; some models always add a causal mask of
        their own.
        """
        if not takes_positions(self.model):
            return False
        n_words, training = self.n_text_tokens, self.training
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(SET_SIZE, self.width, generator=generator) * ID_EMBEDDING_STD
        ids = torch.arange(n_words, n_words + SET_SIZE)
        first, last = torch.tensor([0]), torch.tensor([n_words - 1])
        orders = torch.stack([torch.cat([first, order, last]) for order in (ids, ids.flip(0))])  # (2, L)
        device = self.token_embeddings.device
        orders, rows = orders.to(device), rows.to(device)
        self.eval()
        try:
            with torch.autocast(device.type, enabled=False):
                states = self(orders, torch.ones_like(orders, dtype=torch.bool), rows, orders >= n_words)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            if out_of_memory(error):
                raise
            return False  # the model takes no such mask
        finally:
            self.train(training)
        back = torch.arange(1, SET_SIZE + 1, device=device).flip(0)
        forwards, backwards = (
            states[0, 1:-1].float(),
            states[1].float().index_select(0, back),
        )  # (SET_SIZE, d)
        # Rounding: 7e-6 (float32) and 0.05 (bfloat16) in Gemma 3 270M; if the order is read, about 1.
        tolerance = 1e-4 if self.token_embeddings.dtype == torch.float32 else 0.25
        difference, spread = (forwards - backwards).norm(), (forwards - forwards.mean(0)).norm()
        return bool(difference <= tolerance * spread)

    def check_reads_sets(self) -> None:
        """Refuse bidirectional attention over a set whose order the model would read.

        Raises:
            ValueError: the model cannot leave the order out.
        """
        if not self.reads_sets():
            raise ValueError(NO_SETS.format(self.model.config.model_type))

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are held, without adapters."""
        return weights_sha256(
            {
                name.replace(".base_layer", ""): tensor
                for name, tensor in self.model.state_dict().items()
                if ".lora_" not in name
            }
        )


def context_of(config: PreTrainedConfig) -> int:
    """Longest example of a model, in tokens."""
    return min(CONTEXT, *(int(getattr(config, name, CONTEXT)) for name in POSITIONS))
