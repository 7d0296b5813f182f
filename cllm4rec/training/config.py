"""How a system is trained. What a system is stands beside the system; where it runs is Accelerate's own configuration."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT
from cllm4rec.settings import check_settings


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epochs: int = field(
        default=50,
        metadata={
            "ge": 0,
            "help": "most epochs, warm-up not counted; patience usually ends training earlier",
        },
    )
    batch_size: int = field(
        default=64,
        metadata={"ge": 1, "help": "examples of one step, over all processes and micro-batches"},
    )
    accumulation: int = field(
        default=1,
        metadata={
            "ge": 1,
            "lt": 65_537,
            "help": "micro-batches a step is computed in: more takes less memory, same result",
        },
    )
    learning_rate: float = field(default=1e-3, metadata={"gt": 0, "help": "peak learning rate of AdamW"})
    warmup_steps: int = field(
        default=50, metadata={"ge": 0, "help": "steps over which the learning rate rises to its peak"}
    )
    clip_norm: float = field(
        default=1.0, metadata={"gt": 0, "help": "largest norm of the gradient of a step"}
    )
    patience: int = field(
        default=5,
        metadata={
            "ge": 1,
            "help": "epochs, validated or not, without a better validation metric before training stops",
        },
    )
    validate_every: int = field(
        default=1,
        metadata={
            "ge": 1,
            "help": "validate after the first epoch, each so many-th after it, and the last",
        },
    )
    max_minutes: float | None = field(
        default=None, metadata={"ge": 0, "help": "stop after this many minutes"}
    )
    seed: int = field(default=0, metadata={"ge": 0, "help": "seed of all draws"})

    def __post_init__(self) -> None:
        check_settings(self)
