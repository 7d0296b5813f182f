"""Settings of CLLM4Rec (arXiv 2311.01343)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cllm4rec.models.item_vectors.config import ItemTextConfig, item_text_setting
from cllm4rec.models.language.config import BackboneConfig, backbone_setting
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig

PAPER_TRAINING: dict[str, Any] = {"batch_size": 20, "patience_steps": 0, "averaging": 0.0}
# The preset `paper`: settings of the paper and its released code (docs/papers.md), whatever the backbone.
PAPER: dict[str, dict[str, Any]] = {
    "system": {
        "item_text": "none",
        "linear": "none",
        "start": "random",
        "finetune_from": "pretrained",
        "content_warmup": 10,
        "content_passes": "both",
        "user_token": "both",
        "user_dropping": 0.0,
        "mask_share": 0.2,
        "targets": "masked",
        "readout": "last",
        "attention": "causal",
    },
    "pretrain": {"epochs": 100, "learning_rate": 1e-3, "patience": 4, "validate_every": 4, **PAPER_TRAINING},
    "finetune": {"epochs": 150, "learning_rate": 1e-4, "patience": 8, "validate_every": 3, **PAPER_TRAINING},
}


@dataclass(frozen=True)
class CLLM4RecConfig(ItemTextConfig, BackboneConfig):
    """Settings of CLLM4Rec."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=8, batch_size=256, learning_rate=1e-4, patience=8, averaging=0.99),
        "finetune": TrainConfig(
            epochs=100,
            batch_size=256,
            learning_rate=3e-4,
            patience=3,
            averaging=0.99,
        ),
    }
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {"paper": PAPER}
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = (
        *BackboneConfig.fixed_after_pretraining,
        *ItemTextConfig.fixed_after_pretraining,
        "start",
        "sampled",
    )
    added_settings: ClassVar[dict[str, Any]] = {
        **BackboneConfig.added_settings,
        **ItemTextConfig.added_settings,
        "content_passes": "both",
        "finetune_from": "pretrained",
    }

    backbone: str = backbone_setting("1x128")
    item_text: str = item_text_setting("auto")
    linear: str = setting(
        "auto",
        choices=["auto", "none", "ease", "ease-text"],
        help=(
            "linear item-item model whose scores are added to those of the finetuned network, with a weight "
            "chosen on validation events: ease, or ease-text, whose prior is of the items' texts; auto: "
            "ease-text if texts are read, else ease; none beyond 15,000 items or without validation events"
        ),
    )
    mutual: float = setting(
        1.0,
        ge=0,
        help="lambda: weight of the mutual regularisation, which pulls the two embeddings of an ID together",
    )
    content_ratio: float = setting(
        1.0,
        ge=0,
        help=(
            "size limit of a content pass, as a multiple of the tokens (and of the compute) of a "
            "collaborative pass; 0 disables content"
        ),
    )
    sampled: int = setting(
        0,
        ge=0,
        lt=1 << 24,
        help=(
            "items of the sampled softmax of a training step, for example 8192 for catalogues of millions, "
            "drawn by popularity and corrected for it (log q), which lowers the reported losses; 0: the "
            "full softmax"
        ),
    )
    order: str = setting(
        "random",
        choices=["random", "time"],
        help=(
            "order of a history's items: random (reshuffled for every prompt) or time (for next-item "
            "recommendation)"
        ),
    )
    start: str = setting(
        "factors",
        choices=["random", "title", "factors"],
        advanced=True,
        help=(
            "initialisation of the ID embeddings: random, title (mean of the title's token embeddings) or "
            "factors (matrix factorisation of the training events)"
        ),
    )
    finetune_from: str = setting(
        "best",
        choices=["best", "pretrained"],
        advanced=True,
        help=(
            "weights from which finetuning starts: pretrained, or best: those before pretraining, if their "
            "validation metric is 5 % higher (not where a pretrained backbone is tuned)"
        ),
    )
    prior: float = setting(
        1e-4, ge=0, advanced=True, help="precision of the Gaussian prior of the ID embeddings"
    )
    content_warmup: int = setting(
        1, ge=0, advanced=True, help="epochs on content alone before the first collaborative epoch"
    )
    content_passes: str = setting(
        "pretraining",
        choices=["pretraining", "both"],
        advanced=True,
        help="stages that also train on the texts of items and users: pretraining, or both",
    )
    user_token: str = setting(
        "pretraining",
        choices=["pretraining", "both"],
        advanced=True,
        help=(
            "prompts with the token of the user: those of pretraining (finetuning and lists read users from "
            "their items alone) or those of both stages"
        ),
    )
    user_dropping: float = setting(
        0.2,
        ge=0,
        lt=1,
        advanced=True,
        help="share of the training prompts with a user token from which it is dropped",
    )
    mask_share: float = setting(
        0.5, ge=0, lt=1, advanced=True, help="share of a history that is masked in finetuning"
    )
    targets: str = setting(
        "unseen",
        choices=["unseen", "masked", "all"],
        advanced=True,
        help=(
            "items that finetuning predicts: unseen (masked items; the other items of the history leave the "
            "softmax), masked (masked items in the full softmax) or all (every item of the history)"
        ),
    )
    readout: str = setting(
        "pooled",
        choices=["last", "pooled"],
        advanced=True,
        help=(
            "user representation: last (hidden state of the last token) or pooled (mean hidden state of the "
            "items)"
        ),
    )
    attention: str = setting(
        "auto",
        choices=["auto", "causal", "bidirectional"],
        advanced=True,
        help=(
            "attention over the prompt in finetuning; auto: bidirectional for backbones with random weights "
            "and items in random order, else causal"
        ),
    )

    def has_content_passes(self, stage: str) -> bool:
        """Whether a stage also trains on the texts of items and users."""
        return self.content_ratio > 0 and (stage == "pretrain" or self.content_passes == "both")

    def reads_user_token(self, finetuned: bool) -> bool:
        """Whether prompts of a stage have the token of the user."""
        return not finetuned or self.user_token == "both"

    @property
    def may_start_anew(self) -> bool:
        """Whether finetuning may start from the weights before pretraining."""
        return self.finetune_from == "best" and (self.built_in or self.tuning == "frozen")

    @property
    def list_template(self) -> str:
        """Template of the prompts of finetuning and of lists.

        A backbone that learns all of its weights learns nothing from constant words. If items are read as a
        set, words would take a share of the attention that depends on the length of the history.
        """
        return "set" if self.built_in and self.pooled and self.bidirectional else "recommend"

    @property
    def pooled(self) -> bool:
        """Whether the user is read from the mean hidden state of the items."""
        return self.readout == "pooled"

    @property
    def bidirectional(self) -> bool:
        """`attention` with auto resolved."""
        if self.attention == "auto":
            return self.built_in and self.order == "random"
        return self.attention == "bidirectional"
