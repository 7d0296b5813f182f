"""How a step is computed in parts that fit in memory; recorded, so that a resumed run uses the same parts."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT


@dataclass(frozen=True)
class TokenLimit:
    """The largest micro-batch of an objective.

    Attributes:
        tokens: most tokens, padding included; a longer example is a micro-batch of its own. 0: no trained
            weight takes part in the objective, and its steps are left out.
        beyond: tokens of an example that `Corpus.lengths_in` does not count, at most.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    tokens: int
    beyond: int = 0


@dataclass(frozen=True)
class Limits:
    """How the steps of a stage are computed.

    Attributes:
        micro_batches: name of an objective -> its largest micro-batch; an absent one is not limited.
        checkpointed: whether layers are computed again in the backward pass instead of being kept.
        memory: GiB that a process was allowed to take; None: a share of what was free.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    micro_batches: dict[str, TokenLimit] = field(default_factory=dict)
    checkpointed: bool = False
    memory: float | None = None

    def learned(self, objective: str) -> bool:
        """Whether a trained weight takes part in an objective."""
        limit = self.micro_batches.get(objective)
        return limit is None or limit.tokens > 0


NO_LIMITS = Limits()
