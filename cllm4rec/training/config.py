"""How a system is trained. What a system is stands beside the system; where it runs is Accelerate's own configuration."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from cllm4rec.data.schema import STRICT

LARGEST = 2**63 - 1  # of whole numbers


def check_settings(config: Any) -> None:
    """Refuse values that a field's metadata rules out: `choices`, `least` and `most` (both allowed), `above` or
    `below` (neither allowed); numbers that are none; and whole numbers beyond 64 bits.

    Raises:
        ValueError: names the setting, its value and what it may be.
    """
    for one in fields(config):
        value, rule = getattr(config, one.name), one.metadata
        if value is not None and "choices" in rule and value not in rule["choices"]:
            raise ValueError(f"{one.name} is {value!r}: it may be {', '.join(rule['choices'])}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{one.name} is {value}: give a number")
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{one.name} is {value}: whole numbers go up to {LARGEST}")
        if value is not None and "least" in rule and value < rule["least"]:
            raise ValueError(f"{one.name} is {value}: it may not be below {rule['least']}")
        if value is not None and "most" in rule and value > rule["most"]:
            raise ValueError(f"{one.name} is {value}: it may not be above {rule['most']}")
        if value is not None and "above" in rule and value <= rule["above"]:
            raise ValueError(f"{one.name} is {value}: it has to be above {rule['above']}")
        if value is not None and "below" in rule and value >= rule["below"]:
            raise ValueError(f"{one.name} is {value}: it has to be below {rule['below']}")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epochs: int = field(
        default=50, metadata={"least": 0, "help": "most epochs, warm-up not counted; patience usually ends training earlier"}
    )
    batch_size: int = field(
        default=64, metadata={"least": 1, "help": "examples of one step, over all processes and micro-batches"}
    )
    accumulation: int = field(
        default=1,
        metadata={
            "least": 1,
            "below": 65_537,
            "help": "micro-batches a step is computed in: more takes less memory, same result",
        },
    )
    learning_rate: float = field(default=1e-3, metadata={"above": 0, "help": "peak learning rate of AdamW"})
    warmup_steps: int = field(default=50, metadata={"least": 0, "help": "steps over which the learning rate rises to its peak"})
    clip_norm: float = field(default=1.0, metadata={"above": 0, "help": "largest norm of the gradient of a step"})
    patience: int = field(
        default=5,
        metadata={"least": 1, "help": "epochs, validated or not, without a better validation metric before training stops"},
    )
    validate_every: int = field(
        default=1, metadata={"least": 1, "help": "validate after the first epoch, each so many-th after it, and the last"}
    )
    max_minutes: float | None = field(default=None, metadata={"least": 0, "help": "stop after this many minutes"})
    seed: int = field(default=0, metadata={"least": 0, "help": "seed of all draws"})

    def __post_init__(self) -> None:
        check_settings(self)
