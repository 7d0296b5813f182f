"""The contract between the loop, corpora and networks."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from cllm4rec.corpora.base import Batch, Corpus


@dataclass(frozen=True)
class Objective:
    """One thing to learn: the corpus, visited in every epoch from `from_epoch` on; epochs before that are a warm-up."""

    name: str
    corpus: Corpus
    from_epoch: int = 0


class Net(Protocol):
    """What the loop needs of a network, beside being an `nn.Module`."""

    def __call__(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        """Loss terms by name, each a sum over the batch."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters under the names that the gradient norms are reported by."""
        ...

    def diagnostics(self) -> dict[str, float]:
        """Further values worth a look after each epoch."""
        ...
