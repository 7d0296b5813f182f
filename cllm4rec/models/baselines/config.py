"""Settings of the baselines."""

from dataclasses import dataclass

from cllm4rec.models.config import WIDEST, SystemConfig
from cllm4rec.models.readings.config import TextVectorConfig
from cllm4rec.settings import setting

CHOSEN = "auto: chosen on validation events"


@dataclass(frozen=True)
class PopularityConfig(SystemConfig):
    """Settings of popularity: none."""


@dataclass(frozen=True)
class DecayedInput(SystemConfig):
    """Setting of systems that read a history as a weighted set of items."""

    decay: float | None = setting(
        1.0,
        gt=0,
        le=1,
        auto=True,
        help=f"weight of a history item relative to the next newer one; 1 ignores the order; {CHOSEN}",
    )


@dataclass(frozen=True)
class EASEConfig(TextVectorConfig, DecayedInput):
    """Settings of EASE."""

    regularization: float | None = setting(None, gt=0, auto=True, help=f"L2 penalty; {CHOSEN}")
    text_prior: bool = setting(
        False,
        help=(
            "draw the weights of an item towards those that predict its text from the texts of other items "
            "(L3AE); the texts are read by --encoder, or by counting their words"
        ),
    )
    prior_regularization: float | None = setting(
        None, gt=0, auto=True, help=f"L2 penalty of the weights that predict texts; {CHOSEN}"
    )
    prior_share: float | None = setting(
        None,
        ge=0,
        le=1,
        auto=True,
        help=(
            "share of the L2 penalty that draws weights to those that predict texts, not to 0; 0 is EASE "
            f"without texts; {CHOSEN}"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder", "item_vectors", "prior_regularization", "prior_share"):
            if not self.text_prior and getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` has no effect without `text_prior`: give `text_prior`, or leave it out"
                )


@dataclass(frozen=True)
class ItemKNNConfig(DecayedInput):
    """Settings of ItemKNN."""

    neighbours: int | None = setting(None, ge=1, auto=True, help=f"neighbours kept per item; {CHOSEN}")
    shrinkage: float | None = setting(
        None, ge=0, auto=True, help=f"constant added to the denominator of the cosine similarity; {CHOSEN}"
    )


@dataclass(frozen=True)
class IALSConfig(SystemConfig):
    """Settings of iALS."""

    factors: int | None = setting(
        None, ge=1, lt=WIDEST, auto=True, help=f"dimensions of the user and item vectors; {CHOSEN}"
    )
    regularization: float | None = setting(None, ge=0, auto=True, help=f"L2 penalty; {CHOSEN}")
    alpha: float | None = setting(
        None, gt=0, auto=True, help=f"weight of an observed event relative to an unobserved one; {CHOSEN}"
    )
    iterations: int = setting(15, ge=1, help="alternations between user and item vectors")
    seed: int = setting(0, ge=0, help="seed of all random draws")
