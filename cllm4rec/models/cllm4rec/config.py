"""Settings of CLLM4Rec."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.training.config import TrainConfig

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
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ("backbone", "tune", "start", "sampled")

    start: str = field(
        default="factors",
        metadata={"help": "where the ID tables start: random, title (mean of the title's word embeddings) or factors "
                          "(matrix factorisation of the training events)",
                  "choices": ["random", "title", "factors"]},
    )  # fmt: skip
    mutual: float = field(
        default=1.0,
        metadata={
            "ge": 0,
            "help": "lambda, how strongly the two embeddings of an ID are pulled to each other",
        },
    )
    prior: float = field(
        default=1e-4, metadata={"ge": 0, "help": "precision of the Gaussian prior of the ID embeddings"}
    )
    content_ratio: float = field(
        default=1.0,
        metadata={
            "ge": 0,
            "help": "most tokens, and most work, of a content pass in those of a collaborative one; 0: no content",
        },
    )
    content_warmup: int = field(
        default=1, metadata={"ge": 0, "help": "epochs of content alone before the first collaborative one"}
    )
    user_dropping: float = field(
        default=0.2, metadata={"ge": 0, "lt": 1, "help": "share of prompts without their user token"}
    )
    sampled: int = field(
        default=0,
        metadata={"ge": 0, "lt": 1 << 24,
                  "help": "items that the softmax of a training step is over, say 8192 for catalogues of millions: "
                          "drawn by how often they occur and corrected for it (log q); losses read lower; 0: all"},
    )  # fmt: skip
    order: str = field(
        default="random",
        metadata={"help": "order of a history's items: random (shuffled anew each time) or time (for what comes next)",
                  "choices": ["random", "time"]},
    )  # fmt: skip
    mask_share: float = field(
        default=0.5, metadata={"ge": 0, "lt": 1, "help": "share of a history masked in finetuning"}
    )
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
        return self.attention == "bidirectional" or (
            self.attention == "auto" and self.built_in and self.order == "random"
        )
