"""Settings of RSLLM."""

from dataclasses import dataclass, field
from typing import ClassVar

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.training.config import TrainConfig

FORMS = ("unified", "text", "ids")  # in which RSLLM writes items


@dataclass(frozen=True)
class RSLLMConfig(BackboneConfig):
    """What RSLLM is."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=2, learning_rate=1e-3),
        "finetune": TrainConfig(epochs=20, patience=8, learning_rate=5e-4, validate_every=4),
    }
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ("backbone", "tune", "sequential", "dropout")

    sequential: str = field(
        default="sasrec",
        metadata={"help": "whose ID embeddings are read: sasrec or gru4rec, trained first with their default settings, or the "
                          "run folder of one"},
    )  # fmt: skip
    prompt: str = field(
        default="unified",
        metadata={"help": "how items are written in the second stage: unified (title and soft token), text (title) or ids "
                          "(soft token)",
                  "choices": list(FORMS)},
    )  # fmt: skip
    length: int = field(
        default=20, metadata={"ge": 1, "help": "most items of a history that are read, the newest"}
    )
    title_words: int = field(default=6, metadata={"ge": 1, "help": "most words of a title that are read"})
    candidates: int = field(
        default=0,
        metadata={
            "ge": 0,
            "help": "items that the prompts of training name to choose from; 0: none are named",
        },
    )
    negatives: int = field(
        default=16384,
        metadata={
            "ge": 1,
            "help": "items that a step is contrasted with, a new sample each; all if there are less",
        },
    )
    hard: int = field(
        default=16,
        metadata={
            "ge": 0,
            "help": "items that each user is contrasted with beside, the best of the sequential recommender",
        },
    )
    alpha: float = field(default=3.0, metadata={"ge": 0, "help": "weight of C_item; 0: without"})
    beta: float = field(default=1.0, metadata={"ge": 0, "help": "weight of C_user; 0: without"})
    temperature: float = field(default=0.1, metadata={"gt": 0, "help": "cosines of C_item are divided by it"})
    dropout: float = field(
        default=0.2,
        metadata={
            "ge": 0,
            "lt": 1,
            "help": "share of the numbers dropped in training, in tiny and small",
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates == 1:
            raise ValueError("candidates is 1: the only one would be the answer; take 0 or at least 2")

    @property
    def tuning(self) -> str:
        return "lora" if self.tune == "auto" and not self.built_in else super().tuning
