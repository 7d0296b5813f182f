"""Settings of systems that read vectors of items. Imports no torch."""

from dataclasses import dataclass

from cllm4rec.models.config import SystemConfig
from cllm4rec.settings import setting


@dataclass(frozen=True)
class TextVectorConfig(SystemConfig):
    """Settings of the vectors of items. If neither is given, they come from the words of texts."""

    encoder: str | None = setting(
        None,
        metavar="NAME",
        help="language model or sentence encoder that reads the items' texts: name, folder or .gguf file",
    )
    item_vectors: str | None = setting(
        None,
        metavar="FILE",
        help="your own vectors of items: a .parquet or .npy file, such as cllm4rec vectors writes",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder is not None and self.item_vectors is not None:
            raise ValueError("`encoder` and `item_vectors` are both given: give one of them")
