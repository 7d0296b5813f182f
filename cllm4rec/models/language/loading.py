"""Building a backbone, loading a pretrained one, and restoring that of a run."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerBase

from cllm4rec.corpora.tokenizer import train_bpe
from cllm4rec.messages import library_errors
from cllm4rec.models.description import Shapes
from cllm4rec.models.language.adapters import check_peft, draw_adapters
from cllm4rec.models.language.architecture import NO_SETS, takes_positions
from cllm4rec.models.language.backbone import CONTEXT, Backbone
from cllm4rec.models.language.config import HEAD_WIDTH, BackboneConfig, built_in_shape
from cllm4rec.models.language.conformance import check_conforms
from cllm4rec.models.language.pretrained import Pretrained, read_run_model
from cllm4rec.training.device import frozen_dtype

ADVICE = (
    "; `backbone` takes tiny, small, a shape such as 1x256, or name, folder or GGUF file of a Hugging Face "
    "causal language model"
)
RUN_PREFIX = "backbone.model."  # of the names of a tuned backbone's weights in model.safetensors


def _check_config(config: BackboneConfig) -> None:
    """Refuse settings that contradict one another.

    A built-in backbone cannot be frozen: it has learned nothing, and the run would not hold it.
    """
    if config.built_in and not config.tuned:
        raise ValueError(
            f"`tune={config.tune}`: {config.backbone} is not pretrained and is trained in full: "
            "leave `tune` out"
        )
    if config.built_in and config.revision is not None:
        raise ValueError(f"`revision` {config.revision}: {config.backbone} is built here: leave it out")
    if config.tuned and config.dtype == "bfloat16":
        raise ValueError(
            "`dtype=bfloat16`: trained weights are float32: leave `dtype` out, or take another `tune`"
        )


def held_dtype(config: BackboneConfig) -> torch.dtype:
    """The dtype in which the weights of a backbone are held, `dtype` with auto resolved for this device."""
    if config.dtype == "auto" and not config.tuned:
        return frozen_dtype()
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def check_backbone(config: BackboneConfig, folder: str | None = None) -> Pretrained | None:
    """Check that a backbone can be loaded, without reading its weights.

    Args:
        config: its settings.
        folder: its new path, if it has moved.

    Returns:
        A pretrained backbone without its weights. None for a built-in one, whose tokenizer is trained later.

    Raises:
        ValueError: there is no such model, it is not a causal language model, its tokenizer has more tokens
            than its embedding table has rows, or adapters are requested without peft.
    """
    _check_config(config)
    if config.tuning == "lora":
        check_peft()
    return None if config.built_in else _read(config, folder)


def _read(config: BackboneConfig, folder: str | None, advice: str = ADVICE) -> Pretrained:
    """Everything of a pretrained backbone but the weights; the arguments are those of `load_backbone`."""
    if folder is None:
        pretrained = Pretrained.read(config.backbone, advice, config.revision)
    else:
        pretrained = Pretrained.read(folder)
    if config.bidirectional and not takes_positions(pretrained.model):
        raise ValueError(NO_SETS.format(pretrained.model.config.model_type))
    return pretrained


def build_backbone(
    config: BackboneConfig, texts: Iterable[str], seed: int, dropout: float = 0.0, folder: str | None = None
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A new backbone and its tokenizer.

    Args:
        config: its settings: a built-in backbone, or the name or folder of a pretrained one.
        texts: on which the BPE of a built-in backbone is trained.
        seed: of the weights of a built-in backbone, and of adapters.
        dropout: of the inputs and of each layer's output in a built-in backbone. A pretrained one keeps its
            rates.
        folder: new path of a pretrained backbone, if it has moved.

    Raises:
        ValueError: the backbone cannot be loaded, or a built-in one was to be frozen.
    """
    if not config.built_in:
        backbone, tokenizer = load_backbone(config, folder)
        if backbone.adapted:
            draw_adapters(backbone.model, seed)
        return backbone, tokenizer
    _check_config(config)
    tokenizer = train_bpe(texts)
    shape = built_in_shape(config.backbone)
    assert shape is not None
    layers, width = shape
    gpt2_config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=max(2, width // HEAD_WIDTH),
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
    config: BackboneConfig, folder: str | None = None, advice: str = ADVICE
) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """A pretrained backbone and its tokenizer.

    Args:
        config: names it: its folder, its GGUF file, or its name at the hub.
        folder: its new path, if it has moved.
        advice: appended to the message where the name that `config` gives leads to no model.

    Raises:
        ValueError: there is no such model, it is not a causal language model, its files do not fit one
            another, it reads words in a way that this package does not know, or attention is to be
            bidirectional and it cannot be.
    """
    _check_config(config)
    name, pretrained = folder or config.backbone, _read(config, folder, advice)
    model, sha256 = pretrained.load(held_dtype(config))
    with library_errors(f"backbone {name!r} cannot be loaded"):
        backbone = Backbone(model, config.tuning, 1.0, stored_sha256=sha256, commit=pretrained.commit)
        check_conforms(backbone)
    if config.bidirectional:
        backbone.check_reads_sets()
    return backbone, pretrained.tokenizer


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
    model = AutoModelForCausalLM.from_config(saved.model.config, trust_remote_code=False)
    return Backbone(model, config.tuning, *scales), saved.tokenizer
