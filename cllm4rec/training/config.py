"""How a system is trained. What a system is stands beside the system; where it runs is Accelerate's own configuration."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop."""

    epochs: int = field(
        default=50, metadata={"help": "most epochs, warm-up not counted; patience usually ends training earlier"}
    )
    batch_size: int = field(default=64, metadata={"help": "examples of one step, over all processes and micro-batches"})
    accumulation: int = field(
        default=1, metadata={"help": "micro-batches a step is computed in: more takes less memory, same result"}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of AdamW"})
    warmup_steps: int = field(default=50, metadata={"help": "steps over which the learning rate rises to its peak"})
    clip_norm: float = field(default=1.0, metadata={"help": "largest norm of the gradient of a step"})
    patience: int = field(default=5, metadata={"help": "epochs without a better validation metric before training stops"})
    max_minutes: float | None = field(default=None, metadata={"help": "stop after this many minutes"})
    seed: int = field(default=0, metadata={"help": "seed of all draws"})
