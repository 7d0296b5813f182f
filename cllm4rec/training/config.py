"""Settings of the training loop. A system has its settings, and Accelerate configures the devices."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT
from cllm4rec.settings import check_settings, setting


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epochs: int = setting(
        50,
        ge=0,
        help="maximum number of epochs, content warm-up not counted; patience may end training earlier",
    )
    batch_size: int = setting(
        64, ge=1, help="examples per optimiser step, summed over all processes and micro-batches"
    )
    accumulation: int = setting(
        1, ge=1, lt=65_537, help="minimum number of micro-batches per step; memory is limited without it too"
    )
    learning_rate: float = setting(1e-3, gt=0, help="peak learning rate of AdamW")
    patience: int = setting(
        5,
        ge=1,
        help=(
            "epochs without a better validation metric after which training stops; epochs without "
            "validation count"
        ),
    )
    patience_steps: int = setting(
        200,
        ge=0,
        advanced=True,
        help=(
            "steps without a better validation metric that training goes on at least, whatever `patience` "
            "says: small datasets have few steps an epoch"
        ),
    )
    validate_every: int = setting(
        1, ge=1, help="epochs between two validations; the first and the last epoch are always validated"
    )
    max_minutes: float | None = setting(
        None, ge=0, help="stop training after this many minutes; no limit by default"
    )
    seed: int = setting(0, ge=0, help="seed of all random draws")
    warmup_steps: int = setting(
        50, ge=0, advanced=True, help="steps over which the learning rate rises linearly to its peak"
    )
    schedule: str = setting(
        "constant",
        choices=["constant", "linear"],
        advanced=True,
        help=(
            "learning rate after the warm-up: constant, or linear, which falls towards 0 until the last of "
            "`epochs`"
        ),
    )
    averaging: float = setting(
        0.0,
        ge=0,
        lt=1,
        advanced=True,
        help=(
            "decay of the moving average of the weights over the steps, which is validated and saved in "
            "their place; 0: no average. Tables of a sampled softmax are not averaged"
        ),
    )
    clip_norm: float = setting(
        1.0,
        gt=0,
        advanced=True,
        help="maximum L2 norm of the gradient of a step; larger gradients are scaled down",
    )

    @property
    def averaged(self) -> bool:
        """Whether moving averages of the weights are kept."""
        return self.averaging > 0

    def __post_init__(self) -> None:
        check_settings(self)
