"""Settings of systems on a language model."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from cllm4rec.models.config import SystemConfig
from cllm4rec.settings import setting

# Backbones with random weights, built here: name -> layers, width.
BUILT_IN = {"tiny": (2, 128), "small": (4, 256)}
SHAPE = re.compile(r"([0-9]{1,2})x([0-9]{1,5})")  # layers and width of other ones
HEAD_WIDTH = 64


def built_in_shape(backbone: str) -> tuple[int, int] | None:
    """Layers and width of a backbone that is built here; None for any other name."""
    shape = SHAPE.fullmatch(backbone)
    return BUILT_IN.get(backbone) if shape is None else (int(shape[1]), int(shape[2]))


def backbone_setting(default: str) -> Any:
    """The field of `backbone`; systems differ in its default."""
    return setting(
        default,
        metavar="NAME",
        help=(
            "language model: tiny (2 layers, width 128), small (4 layers, width 256) or another shape, such "
            "as 1x256, with random weights; or the name or folder of a Hugging Face causal language model, "
            "or its .gguf file (needs cllm4rec[gguf])"
        ),
    )


@dataclass(frozen=True)
class BackboneConfig(SystemConfig):
    """The language model, and which of its weights are trained."""

    fixed_after_pretraining: ClassVar[tuple[str, ...]] = (
        "backbone",
        "revision",
        "tune",
        "chat_template",
        "dtype",
    )

    backbone: str = backbone_setting("tiny")
    tune: str = setting(
        "auto",
        choices=["auto", "frozen", "lora", "full"],
        help=(
            "trained weights of the backbone: frozen (none), lora (adapters; needs cllm4rec[lora]) or full; "
            "auto: full with random weights, else frozen for cllm4rec and lora for rsllm"
        ),
    )

    chat_template: str = setting(
        "auto",
        choices=["auto", "off"],
        help="prompts in the chat template of an instruction-tuned backbone; auto: if its tokenizer has one",
    )
    revision: str | None = setting(
        None,
        metavar="NAME",
        advanced=True,
        help="branch, tag or commit of a backbone by name at the Hugging Face hub; by default its main one",
    )
    dtype: str = setting(
        "auto",
        choices=["auto", "float32", "bfloat16"],
        advanced=True,
        help=(
            "type in which the frozen weights of the backbone are held and multiplied; auto: bfloat16 where "
            "the device multiplies in it, else float32. Trained weights are float32"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = built_in_shape(self.backbone)
        if self.backbone not in BUILT_IN and shape and (not shape[1] or shape[1] % HEAD_WIDTH):
            raise ValueError(f"`backbone={self.backbone}`: the width has to be a multiple of {HEAD_WIDTH}")

    @property
    def built_in(self) -> bool:
        """Whether the backbone is built here, with random weights."""
        return built_in_shape(self.backbone) is not None

    @property
    def tuned(self) -> bool:
        """Whether all weights of the backbone are trained."""
        return self.tuning == "full"

    @property
    def tuning(self) -> str:
        """`tune` with auto resolved: frozen, lora or full."""
        if self.tune != "auto":
            return self.tune
        return "full" if self.built_in else "frozen"

    @property
    def bidirectional(self) -> bool:
        """Whether attention over a set of items is bidirectional in some stage."""
        return False
