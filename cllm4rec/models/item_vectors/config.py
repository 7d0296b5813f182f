"""Settings of item vectors that read texts. Imports no torch."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cllm4rec.models.readings.config import TextVectorConfig
from cllm4rec.settings import setting

PARTS = ("auto", "none", "words", "vectors", "both")


def item_text_setting(default: str) -> Any:
    """The field of `item_text`; systems differ in its default."""
    return setting(
        default,
        choices=list(PARTS),
        help=(
            "what the texts of an item add to its vector: words (learned vectors of its words and bigrams), "
            "vectors (a learned map of its frozen text vector), both or none; auto: words where there are "
            "texts, and vectors where --encoder, --item-vectors or a pretrained backbone gives them"
        ),
    )


@dataclass(frozen=True)
class ItemTextConfig(TextVectorConfig):
    """What the texts of an item add to its vector."""

    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ("item_text", "encoder", "item_vectors", "text_rate")

    item_text: str = item_text_setting("none")
    text_rate: float = setting(
        4.0,
        gt=0,
        advanced=True,
        help="learning rate of the parameters that read texts, as a multiple of that of the others",
    )
    word_dropout: float = setting(
        0.0, ge=0, lt=1, advanced=True, help="share of an item's words that are dropped in training"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder", "item_vectors"):
            if getattr(self, name) is not None and self.item_text in ("none", "words"):
                raise ValueError(
                    f"`{name}` has no effect with `item_text={self.item_text}`: leave it out, or set "
                    "`item_text` to both"
                )

    @property
    def reads_words(self) -> bool:
        """Whether words are to be read, if there are any."""
        return self.item_text in ("auto", "words", "both")

    @property
    def reads_vectors(self) -> bool:
        """Whether text vectors are to be read, if there are any."""
        return self.item_text in ("auto", "vectors", "both")
