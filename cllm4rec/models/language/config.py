"""Settings of the systems on a language model."""

from dataclasses import dataclass, field
from typing import ClassVar

from cllm4rec.models.config import SystemConfig

BUILT_IN = {"tiny": (2, 128), "small": (4, 256)}  # backbones made here, not pretrained: name -> layers, width


@dataclass(frozen=True)
class BackboneConfig(SystemConfig):
    """Which language model, and what of it is trained."""

    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ("backbone", "tune")

    backbone: str = field(
        default="tiny",
        metadata={"help": "tiny (2 layers x 128) or small (4 x 256), both made here and not pretrained; or the name or "
                          "folder of a Hugging Face causal language model"},
    )  # fmt: skip
    tune: str = field(
        default="auto",
        metadata={"help": "what of the backbone is trained: frozen, lora (adapters; needs cllm4rec[lora]), full, or auto (full "
                          "for tiny and small; others: frozen by cllm4rec, lora by rsllm)",
                  "choices": ["auto", "frozen", "lora", "full"]},
    )  # fmt: skip

    @property
    def built_in(self) -> bool:
        return self.backbone in BUILT_IN

    @property
    def tuned(self) -> bool:
        return self.tuning == "full"

    @property
    def tuning(self) -> str:
        """What `tune` comes to: frozen, lora or full."""
        return self.tune if self.tune != "auto" else "full" if self.built_in else "frozen"
