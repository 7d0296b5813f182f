"""Backbone: any Hugging Face causal language model, frozen or tuned, that also reads user and item IDs."""

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cllm4rec.corpora.tokenizer import train_bpe
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.description import Shapes
from cllm4rec.models.language.attention import ATTENTION
from cllm4rec.models.language.config import BUILT_IN, BackboneConfig
from cllm4rec.models.language.pretrained import Pretrained, read_run_model, vocabulary_size

LORA_RANK = 16
ADVICE = "; `backbone` takes tiny, small, or the name or folder of a Hugging Face causal language model"
RUN_PREFIX = "backbone.model."  # of the names of a tuned backbone's weights in model.safetensors
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


def add_adapters(model: PreTrainedModel) -> None:
    """Add trainable low-rank adapters to all linear layers. They are initialised as zero maps.

    Raises:
        ValueError: peft is not installed.
    """
    _check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear"), model
    )


def _check_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need peft, which is not installed: pip install 'cllm4rec[lora]'")


def _check_tuning(config: BackboneConfig) -> None:
    """Refuse to freeze a built-in backbone: it has learned nothing, and the run would not hold it."""
    if config.built_in and not config.tuned:
        raise ValueError(
            f"`tune={config.tune}`: {config.backbone} is not pretrained and is trained in full: "
            "leave `tune` out"
        )


def check_backbone(config: BackboneConfig, folder: str | None = None) -> PreTrainedTokenizerBase | None:
    """Check that a backbone can be loaded, without reading its weights.

    Args:
        config: its settings.
        folder: its new path, if it has moved.

    Returns:
        The tokenizer of a pretrained backbone. None for a built-in one, whose tokenizer is trained later.

    Raises:
        ValueError: there is no such model, it is not a causal language model, its tokenizer has more tokens
            than its embedding table has rows, or adapters are requested without peft.
    """
    _check_tuning(config)
    if config.tuning == "lora":
        _check_peft()
    return None if config.built_in else Pretrained.read(folder or config.backbone, ADVICE).tokenizer


def build_backbone(
    config: BackboneConfig, texts: Iterable[str], seed: int, dropout: float = 0.0, folder: str | None = None
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A new backbone and its tokenizer.

    Args:
        config: its settings: a built-in backbone, or the name or folder of a pretrained one.
        texts: on which the BPE of a built-in backbone is trained.
        seed: of the weights of a built-in backbone.
        dropout: of the inputs and of each layer's output in a built-in backbone. A pretrained one keeps its
            rates.
        folder: new path of a pretrained backbone, if it has moved.

    Raises:
        ValueError: the backbone cannot be loaded, or a built-in one was to be frozen.
    """
    if not config.built_in:
        return load_backbone(config, folder)
    _check_tuning(config)
    tokenizer = train_bpe(texts)
    layers, width = BUILT_IN[config.backbone]
    gpt2_config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=max(2, width // 64),
        activation_function="relu",
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            gpt2_config, attn_implementation="sdpa", trust_remote_code=False
        )
    with torch.no_grad():
        # each block is initialised as the identity, so that the initial ID embeddings reach the last layer
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
    return Backbone(model, config.tuning, width**0.5, width**0.5), tokenizer


def load_backbone(
    config: BackboneConfig, folder: str | None = None
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A pretrained backbone and its tokenizer.

    Args:
        config: names its folder, or its name at the hub.
        folder: its new path, if it has moved.

    Raises:
        ValueError: there is no such model, it is not a causal language model, or its files do not fit one
            another.
    """
    name = folder or config.backbone
    pretrained = Pretrained.read(name, "" if folder else ADVICE)
    model = pretrained.load()
    std = float(cast(Tensor, model.get_input_embeddings().weight).detach().std())
    if not std > 0:
        raise ValueError(f"backbone {name!r} cannot be loaded: its embedding table is constant or not finite")
    return Backbone(model, config.tuning, 1.0, std / ID_EMBEDDING_STD), pretrained.tokenizer


def restore_backbone(
    folder: Path, config: BackboneConfig, scales: tuple[float, float], shapes: Shapes
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """The network and tokenizer of a run's tuned backbone. Its weights are loaded later.

    Args:
        folder: of the backbone's configuration and tokenizer.
        config: of the run.
        scales: `token_scale` and `id_scale`.
        shapes: of the arrays in the run's model.safetensors, by name.

    Raises:
        ValueError: a file is missing or damaged, or describes another network than that of the weights.
    """
    saved = read_run_model(folder, shapes, RUN_PREFIX)
    model = AutoModelForCausalLM.from_config(
        saved.model.config, attn_implementation="sdpa", trust_remote_code=False
    )
    return Backbone(model, config.tuning, *scales), saved.tokenizer
