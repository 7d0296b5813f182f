"""The settings of every system: what `--help` shows and model.json holds. Imports no library that runs them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cllm4rec.data.schema import STRICT
from cllm4rec.training.config import TrainConfig, check_settings

BUILT_IN = {"tiny": (2, 128), "small": (4, 256)}  # backbones made here, not pretrained: name -> layers, width
WIDEST = 65_537  # above any width of vectors
FORMS = ("unified", "text", "ids")  # in which RSLLM writes items


@dataclass(frozen=True)
class SystemConfig:
    """What a system is. Fields become flags; None is a value that fitting chooses."""

    training: ClassVar[dict[str, TrainConfig]] = {}  # stage -> how it is trained; none where `pretrain` fits in one go
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {}  # name -> settings of the system and of each stage
    settled: ClassVar[tuple[str, ...]] = ()  # settings that the first stage settles

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class PopularityConfig(SystemConfig):
    """Nothing to set."""


@dataclass(frozen=True)
class DecayedInput(SystemConfig):
    """Setting of systems that read a history as a weighted set of items."""

    decay: float | None = field(
        default=1.0,
        metadata={"above": 0, "most": 1, "auto": True,
                  "help": "share of its weight that an item of the history keeps for each newer one; 1: order does not "
                          "matter; auto: chosen on validation events"},
    )  # fmt: skip


@dataclass(frozen=True)
class EASEConfig(DecayedInput):
    """Settings of EASE."""

    regularization: float | None = field(
        default=None, metadata={"above": 0, "help": "L2 penalty; chosen on validation events if not given"}
    )


@dataclass(frozen=True)
class ItemKNNConfig(DecayedInput):
    """Settings of ItemKNN."""

    neighbours: int | None = field(
        default=None, metadata={"least": 1, "help": "items kept for each item; chosen on validation events if not given"}
    )
    shrinkage: float | None = field(
        default=None, metadata={"least": 0, "help": "added to the denominator of the cosine; chosen likewise if not given"}
    )


@dataclass(frozen=True)
class IALSConfig(SystemConfig):
    """Settings of iALS."""

    factors: int = field(default=256, metadata={"least": 1, "below": WIDEST, "help": "width of a user's and an item's vector"})
    regularization: float | None = field(
        default=None, metadata={"least": 0, "help": "L2 penalty; chosen on validation events if not given"}
    )
    alpha: float | None = field(
        default=None,
        metadata={"above": 0, "help": "weight of a seen event against an unseen one; chosen likewise"},
    )
    iterations: int = field(default=15, metadata={"least": 1, "help": "alternations"})
    seed: int = field(default=0, metadata={"least": 0, "help": "seed of the start"})


@dataclass(frozen=True)
class SequentialConfig(SystemConfig):
    """What a sequential recommender is."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=128, patience=10, validate_every=3)
    }

    width: int = field(
        default=64, metadata={"least": 1, "below": WIDEST, "help": "width of an item's embedding and of the states"}
    )
    layers: int = field(default=2, metadata={"least": 1, "below": 1_025, "help": "layers of the encoder"})
    dropout: float = field(default=0.5, metadata={"least": 0, "below": 1, "help": "share of the numbers dropped in training"})
    length: int = field(
        default=50, metadata={"least": 1, "below": 1_000_001, "help": "most items of a history that are read, the newest"}
    )


@dataclass(frozen=True)
class SASRecConfig(SequentialConfig):
    """Settings of SASRec."""

    heads: int = field(default=2, metadata={"least": 1, "help": "attention heads; they divide the width"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}: it has to divide the width, {self.width}")


@dataclass(frozen=True)
class BackboneConfig(SystemConfig):
    """Which language model, and what of it is trained."""

    settled: ClassVar[tuple[str, ...]] = ("backbone", "tune")

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


PAPER: dict[
    str, dict[str, Any]
] = {  # settings of the paper and its released code (docs/papers.md); the backbone stays a choice of its own
    "system": {
        "start": "random",
        "content_warmup": 10,
        "user_dropping": 0.0,
        "mask_share": 0.2,
        "targets": "masked",
        "readout": "last",
        "attention": "causal",
    },
    "pretrain": {"epochs": 100, "batch_size": 20, "learning_rate": 1e-3},
    "finetune": {"epochs": 150, "batch_size": 20, "learning_rate": 1e-4},
}


@dataclass(frozen=True)
class CLLM4RecConfig(BackboneConfig):
    """What CLLM4Rec is. `PAPER` holds the paper's values beside these defaults."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=8, patience=4, learning_rate=1e-4, validate_every=4),
        "finetune": TrainConfig(epochs=100, patience=8, learning_rate=3e-4, validate_every=3),
    }
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {"paper": PAPER}
    settled: ClassVar[tuple[str, ...]] = ("backbone", "tune", "start", "sampled")

    start: str = field(
        default="factors",
        metadata={"help": "where the ID tables start: random, title (mean of the title's word embeddings) or factors "
                          "(matrix factorisation of the training events)",
                  "choices": ["random", "title", "factors"]},
    )  # fmt: skip
    mutual: float = field(
        default=1.0, metadata={"least": 0, "help": "lambda, how strongly the two embeddings of an ID are pulled to each other"}
    )
    prior: float = field(default=1e-4, metadata={"least": 0, "help": "precision of the Gaussian prior of the ID embeddings"})
    content_ratio: float = field(
        default=1.0,
        metadata={
            "least": 0,
            "help": "most tokens, and most work, of a content pass in those of a collaborative one; 0: no content",
        },
    )
    content_warmup: int = field(
        default=1, metadata={"least": 0, "help": "epochs of content alone before the first collaborative one"}
    )
    user_dropping: float = field(
        default=0.2, metadata={"least": 0, "below": 1, "help": "share of prompts without their user token"}
    )
    sampled: int = field(
        default=0,
        metadata={"least": 0, "below": 1 << 24,
                  "help": "items that the softmax of a training step is over, say 8192 for catalogues of millions: "
                          "drawn by how often they occur and corrected for it (log q); losses read lower; 0: all"},
    )  # fmt: skip
    order: str = field(
        default="random",
        metadata={"help": "order of a history's items: random (shuffled anew each time) or time (for what comes next)",
                  "choices": ["random", "time"]},
    )  # fmt: skip
    mask_share: float = field(default=0.5, metadata={"least": 0, "below": 1, "help": "share of a history masked in finetuning"})
    targets: str = field(
        default="unseen",
        metadata={"help": "finetuning predicts: unseen (the masked items, the rest of the history left out of the softmax), "
                          "masked (the masked items among all) or all (every item of the history)",
                  "choices": ["unseen", "masked", "all"]},
    )  # fmt: skip
    readout: str = field(
        default="auto",
        metadata={"help": "where the user is read: last (token), pooled (item states), or auto (pooled)",
                  "choices": ["auto", "last", "pooled"]},
    )  # fmt: skip
    attention: str = field(
        default="auto",
        metadata={"help": "attention over the prompt in finetuning: causal, bidirectional, or auto (bidirectional for "
                          "tiny and small with items in random order, else causal)",
                  "choices": ["auto", "causal", "bidirectional"]},
    )  # fmt: skip

    @property
    def pooled(self) -> bool:
        return self.readout in ("auto", "pooled")

    @property
    def bidirectional(self) -> bool:
        return self.attention == "bidirectional" or (self.attention == "auto" and self.built_in and self.order == "random")


@dataclass(frozen=True)
class RSLLMConfig(BackboneConfig):
    """What RSLLM is."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=2, learning_rate=1e-3),
        "finetune": TrainConfig(epochs=20, patience=8, learning_rate=5e-4, validate_every=4),
    }
    settled: ClassVar[tuple[str, ...]] = ("backbone", "tune", "sequential", "dropout")

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
    length: int = field(default=20, metadata={"least": 1, "help": "most items of a history that are read, the newest"})
    title_words: int = field(default=6, metadata={"least": 1, "help": "most words of a title that are read"})
    candidates: int = field(
        default=0, metadata={"least": 0, "help": "items that the prompts of training name to choose from; 0: none are named"}
    )
    negatives: int = field(
        default=16384,
        metadata={"least": 1, "help": "items that a step is contrasted with, a new sample each; all if there are less"},
    )
    hard: int = field(
        default=16,
        metadata={"least": 0, "help": "items that each user is contrasted with beside, the best of the sequential recommender"},
    )
    alpha: float = field(default=3.0, metadata={"least": 0, "help": "weight of C_item; 0: without"})
    beta: float = field(default=1.0, metadata={"least": 0, "help": "weight of C_user; 0: without"})
    temperature: float = field(default=0.1, metadata={"above": 0, "help": "cosines of C_item are divided by it"})
    dropout: float = field(
        default=0.2, metadata={"least": 0, "below": 1, "help": "share of the numbers dropped in training, in tiny and small"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates == 1:
            raise ValueError("candidates is 1: the only one would be the answer; take 0 or at least 2")

    @property
    def tuning(self) -> str:
        return "lora" if self.tune == "auto" and not self.built_in else super().tuning
