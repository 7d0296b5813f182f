"""The contract between the training loop, corpora and networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from cllm4rec.corpora.base import Batch, Corpus


@dataclass(frozen=True)
class Objective:
    """A term of the training objective with its corpus.

    Attributes:
        name: of the objective; the network is called with it.
        corpus: examples, visited once in each epoch.
        from_epoch: first epoch in which the corpus is visited; the epochs before are a warm-up.
    """

    name: str
    corpus: Corpus
    from_epoch: int = 0


def warmup_epochs(objectives: Sequence[Objective]) -> int:
    """Epochs before all objectives are visited."""
    return max((objective.from_epoch for objective in objectives), default=0)


class Net(Protocol):
    """Methods of a network, an `nn.Module`, that the training loop calls."""

    def __call__(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        """Loss terms by name, each a sum over the batch."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by the names under which gradient norms are reported."""
        ...

    def diagnostics(self) -> dict[str, float]:
        """Further values reported after each epoch."""
        ...
