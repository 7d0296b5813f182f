"""Settings of RSLLM (arXiv 2412.16933)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig

CONVENTIONAL = ("sasrec", "gru4rec", "bsarec")  # systems whose ID embeddings can be used
# How RSLLM writes items in a prompt.
FORMS = ("unified", "text", "ids")
ONE_EPOCH: dict[str, Any] = {"epochs": 1, "batch_size": 4, "schedule": "linear"}  # of a pretrained backbone


@dataclass(frozen=True)
class RSLLMConfig(BackboneConfig):
    """Settings of RSLLM."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=0, batch_size=16, warmup_steps=20),
        "finetune": TrainConfig(
            epochs=20, batch_size=16, learning_rate=5e-4, warmup_steps=20, patience=8, validate_every=4
        ),
    }
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = (
        *BackboneConfig.fixed_after_pretraining,
        "sequential",
        "dropout",
    )
    added_settings: ClassVar[dict[str, Any]] = {**BackboneConfig.added_settings, "sequential_score": "none"}

    sequential: str = setting(
        "sasrec",
        metavar="NAME",
        help=(
            f"source of the ID embeddings: {' or '.join(CONVENTIONAL)}, trained first with its default "
            "settings, on the texts of items too; or the run folder of one of them"
        ),
    )
    sequential_score: str = setting(
        "auto",
        choices=["auto", "none"],
        help=(
            "score of the sequential system, added to that of the language model: auto fits its weight to "
            "validation events after stage 2"
        ),
    )
    prompt: str = setting(
        "auto",
        choices=["auto", *FORMS],
        help=(
            "how stage 2 writes items: unified (title and soft token), text (title) or ids (soft token); "
            "auto is text if the score of the sequential system is added, else unified"
        ),
    )
    length: int = setting(50, ge=1, help="maximum history length in items; the newest are kept")
    candidates: int = setting(0, ge=0, help="candidate items named in each training prompt; 0: none")
    alpha: float = setting(3.0, ge=0, help="weight of the item contrastive loss C_item; 0 disables it")
    beta: float = setting(1.0, ge=0, help="weight of the user contrastive loss C_user; 0 disables it")
    dropout: float = setting(0.2, ge=0, lt=1, help="dropout rate of a backbone with random weights")
    title_words: int | None = setting(
        None,
        ge=1,
        advanced=True,
        help="maximum length of a title in words; by default 6 for a backbone with random weights, else 64",
    )
    negatives: int = setting(
        16384,
        ge=1,
        advanced=True,
        help="sampled negative items per step; the whole catalogue if it has fewer items",
    )
    hard: int = setting(
        16,
        ge=0,
        advanced=True,
        help="hard negatives per user: the top-ranked unseen items of the sequential recommender",
    )
    temperature: float = setting(
        0.1, gt=0, advanced=True, help="temperature of C_item, by which cosine similarities are divided"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates == 1:
            raise ValueError(
                "`candidates` is 1: the only candidate would be the answer; take 0 or at least 2"
            )

    @property
    def default_training(self) -> dict[str, TrainConfig]:
        """`training`; a pretrained backbone is finetuned for one epoch (`ONE_EPOCH`)."""
        if self.built_in:
            return self.training
        return self.training | {"finetune": replace(self.training["finetune"], **ONE_EPOCH)}

    @property
    def most_title_words(self) -> int:
        """`title_words`, or its default: a pretrained model reads titles whole."""
        return self.title_words or (6 if self.built_in else 64)

    @property
    def tuning(self) -> str:
        """`tune` with auto resolved: adapters for a pretrained backbone."""
        return "lora" if self.tune == "auto" and not self.built_in else super().tuning
