"""Backbone: any Hugging Face causal language model, its words frozen or tuned, with rows for users and items beside them."""

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
from cllm4rec.models.language.architecture import Shapes
from cllm4rec.models.language.attention import ATTENTION
from cllm4rec.models.language.config import BUILT_IN, BackboneConfig
from cllm4rec.models.language.pretrained import Pretrained, n_words, read_run_model

ID_EMBEDDING_STD = (
    0.02  # standard deviation of ID embeddings at the start, and of the words of the built-in backbones
)
LORA_RANK = 16
ADVICE = "; --backbone takes tiny, small, or the name or folder of a Hugging Face causal language model"
RUN_PREFIX = "backbone.model."  # of the weights of a tuned backbone in a run's file
CONTEXT = 1024  # positions of the built-in backbones, and most tokens of an example


class Rows(Protocol):
    """What is read by numbers: a table (n, d), or what stands for one."""

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        """The rows (N, d) of some numbers (N,)."""
        ...


class Backbone(nn.Module):
    """A decoder that reads words and IDs and gives states, and the table of words its softmax is tied to.

    Attributes:
        model: the Hugging Face model.
        tuned: whether its weights are trained; if not, they stay bit-identical and in evaluation mode.
        adapted: whether low-rank adapters are trained beside weights that are not (Hu et al., "LoRA", 2021).
        word_scale, id_scale: factors of the input embeddings. Tables of IDs spread by about ID_EMBEDDING_STD, whatever the
            backbone: small enough to be a softmax, and one learning rate fits all. As inputs they are made as wide as the
            words of a pretrained backbone, or sqrt(width) wider for the backbones made here, words alike.
    """

    def __init__(self, model: PreTrainedModel, tuning: str, word_scale: float, id_scale: float) -> None:
        super().__init__()
        self.tuned, self.adapted = tuning == "full", tuning == "lora"
        model.set_attn_implementation(ATTENTION)  # a model that cannot change, as Falcon, keeps its own
        self.model, self.word_scale, self.id_scale = model, word_scale, id_scale
        self.model.requires_grad_(self.tuned)
        if self.adapted:
            add_adapters(model)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """Frozen parts stay in evaluation mode: else their dropout would wake."""
        return super().train(mode and self.tuned)

    @property
    def width(self) -> int:
        return int(self.words.shape[1])

    @property
    def n_words(self) -> int:
        return n_words(self.model)

    @property
    def context(self) -> int:
        """Most tokens of an example."""
        return min(CONTEXT, int(getattr(self.model.config, "max_position_embeddings", CONTEXT)))

    @property
    def work(self) -> int:
        """Multiplications that a token takes in the layers: their weights, embeddings not counted."""
        base = self.model.base_model
        tables = sum(module.weight.numel() for module in base.modules() if isinstance(module, nn.Embedding))
        return sum(p.numel() for p in base.parameters()) - tables

    @property
    def words(self) -> Tensor:
        """Input embeddings of the words (n_words, d)."""
        return cast(Tensor, self.model.get_input_embeddings().weight)

    @property
    def word_head(self) -> Tensor:
        """Output embeddings of the words (n_words, d), often the same table."""
        return cast(Tensor, self.model.get_output_embeddings().weight)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        table: Rows,
        order_free: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """States of the last layer (B, L, d).

        Args:
            tokens: (B, L) word w -> w, ID t -> n_words + t.
            mask: (B, L), True at tokens, False at padding: at the right of each row, where it changes nothing.
            table: gives the embeddings (N, d) of IDs (N,).
            order_free: (B, L), True at the tokens of a set. If given, attention is bidirectional and the tokens of a set
                share one position, so that the states do not depend on its order; if not, attention is causal.
            cache: keys and values of tokens before these, none of them padding; those of these are added.
        """
        is_id = tokens >= self.n_words
        embedded = (
            self.model.get_input_embeddings()(tokens.masked_fill(is_id, 0)) * self.word_scale
        )  # (B, L, d)
        ids = table[tokens[is_id] - self.n_words] * self.id_scale
        embedded = embedded.index_put((is_id,), ids.to(embedded.dtype))
        visible = positions = (
            None  # the model's own causal attention, which does not look at padding: it comes later
        )
        if order_free is not None:
            visible = embedded.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)  # added to the products
            visible = visible[:, None, None, :]  # (B, 1, 1, L): every token sees the same ones
            follows = torch.zeros_like(order_free)
            follows[:, 1:] = order_free[:, 1:] & order_free[:, :-1]
            positions = (~follows).cumsum(1) - 1
        decoder = self.model.base_model
        kept = {"past_key_values": cache, "use_cache": cache is not None}
        return decoder(
            inputs_embeds=embedded, attention_mask=visible, position_ids=positions, **kept
        ).last_hidden_state

    def fingerprint(self) -> str:
        """SHA-256 of the weights, adapters left out."""
        digest = hashlib.sha256()
        weights = {
            name.replace(".base_layer", ""): one
            for name, one in self.model.state_dict().items()
            if ".lora_" not in name
        }
        for name, tensor in sorted(weights.items()):
            digest.update(
                name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()


def add_adapters(model: PreTrainedModel) -> None:
    """Put low-rank adapters, which are trained, beside the linear layers; they begin as zero.

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
    """Raise ValueError if weights made here shall stay as they are: they have learned nothing, and no run would hold them."""
    if config.built_in and not config.tuned:
        raise ValueError(
            f"--tune {config.tune}: {config.backbone} is not pretrained and is trained in full: leave --tune out"
        )


def check_backbone(config: BackboneConfig, folder: str | None = None) -> PreTrainedTokenizerBase | None:
    """Look whether a backbone can be had, without its weights; `folder`: where it is now, if it has moved.

    Returns:
        The tokenizer of a pretrained one; None of one that is made here, whose words are not learned yet.

    Raises:
        ValueError: there is no such model, it is not a causal language model, its tokenizer has more tokens than its word
            table has rows, or adapters are asked for and peft is not installed.
    """
    _check_tuning(config)
    if config.tuning == "lora":
        _check_peft()
    return None if config.built_in else Pretrained.read(folder or config.backbone, ADVICE).tokenizer


def build_backbone(
    config: BackboneConfig, texts: Iterable[str], seed: int, dropout: float = 0.0, folder: str | None = None
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A new backbone and its tokenizer: built here, its BPE learned from `texts`, or loaded by name or folder.

    `dropout` is that of the inputs and of each layer's output in the backbones built here; loaded ones have their own.
    `folder`: where a loaded one is now, if it has moved.
    """
    if not config.built_in:
        return load_backbone(config, folder)
    _check_tuning(config)
    tokenizer = train_bpe(texts)
    layers, width = BUILT_IN[config.backbone]
    described = GPT2Config(
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
            described, attn_implementation="sdpa", trust_remote_code=False
        )
    with (
        torch.no_grad()
    ):  # each block starts as the identity, so that what the ID tables start with comes through
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
    return Backbone(model, config.tuning, width**0.5, width**0.5), tokenizer


def load_backbone(
    config: BackboneConfig, folder: str | None = None
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A pretrained backbone and its tokenizer, by name or folder; `folder`: where it is now, if it has moved.

    Raises:
        ValueError: there is no such model, or it is not a causal language model, or its files do not fit one another.
    """
    name = folder or config.backbone
    found = Pretrained.read(name, "" if folder else ADVICE)
    model = found.load()
    spread = float(cast(Tensor, model.get_input_embeddings().weight).detach().std())
    if not spread > 0:
        raise ValueError(f"backbone {name!r} cannot be loaded: its word table is constant or not finite")
    return Backbone(model, config.tuning, 1.0, spread / ID_EMBEDDING_STD), found.tokenizer


def restore_backbone(
    folder: Path, config: BackboneConfig, scales: tuple[float, float], shapes: Shapes
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """The architecture and tokenizer saved in a run folder, weights not yet filled in.

    Args:
        folder: of the description and the tokenizer.
        config: of the run.
        scales: of words and IDs.
        shapes: name -> shape of the run's weights.

    Raises:
        ValueError: a file is missing or damaged, or describes another network than that of the weights.
    """
    found = read_run_model(folder, shapes, RUN_PREFIX)
    model = AutoModelForCausalLM.from_config(
        found.model.config, attn_implementation="sdpa", trust_remote_code=False
    )
    return Backbone(model, config.tuning, *scales), found.tokenizer
