"""Settings of the baselines."""

from dataclasses import dataclass, field

from cllm4rec.models.config import WIDEST, SystemConfig


@dataclass(frozen=True)
class PopularityConfig(SystemConfig):
    """Nothing to set."""


@dataclass(frozen=True)
class DecayedInput(SystemConfig):
    """Setting of systems that read a history as a weighted set of items."""

    decay: float | None = field(
        default=1.0,
        metadata={"gt": 0, "le": 1, "auto": True,
                  "help": "share of its weight that an item of the history keeps for each newer one; 1: order does not "
                          "matter; auto: chosen on validation events"},
    )  # fmt: skip


@dataclass(frozen=True)
class EASEConfig(DecayedInput):
    """Settings of EASE."""

    regularization: float | None = field(
        default=None, metadata={"gt": 0, "help": "L2 penalty; chosen on validation events if not given"}
    )


@dataclass(frozen=True)
class ItemKNNConfig(DecayedInput):
    """Settings of ItemKNN."""

    neighbours: int | None = field(
        default=None,
        metadata={"ge": 1, "help": "items kept for each item; chosen on validation events if not given"},
    )
    shrinkage: float | None = field(
        default=None,
        metadata={"ge": 0, "help": "added to the denominator of the cosine; chosen likewise if not given"},
    )


@dataclass(frozen=True)
class IALSConfig(SystemConfig):
    """Settings of iALS."""

    factors: int = field(
        default=256, metadata={"ge": 1, "lt": WIDEST, "help": "width of a user's and an item's vector"}
    )
    regularization: float | None = field(
        default=None, metadata={"ge": 0, "help": "L2 penalty; chosen on validation events if not given"}
    )
    alpha: float | None = field(
        default=None,
        metadata={"gt": 0, "help": "weight of a seen event against an unseen one; chosen likewise"},
    )
    iterations: int = field(default=15, metadata={"ge": 1, "help": "alternations"})
    seed: int = field(default=0, metadata={"ge": 0, "help": "seed of the start"})
