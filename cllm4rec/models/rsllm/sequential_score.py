"""The score of the sequential recommender, added to that of C_user."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation.processes import USERS_AT_ONCE, gathered, share
from cllm4rec.models.fitted import FittedModule
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.validation import users_to_validate

log = logging.getLogger("cllm4rec")

LARGEST = 1000.0  # weight at which the score of C_user only breaks ties
SCORES_AT_ONCE = 1 << 21  # of one system, in float64: 16 MiB


class SequentialScore(FittedModule):
    """w x the inner product of the sequential recommender, added to that of C_user.

    Attributes:
        weight: w, (1,); fitted to validation events after stage 2. A w that is learned with the network would
            be too large: the sequential recommender was trained on the same targets.
    """

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1))

    def join(self, of_model: tuple[Tensor, Tensor], of_base: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Vectors whose inner products are the weighted sum of two others.

        Args:
            of_model: user states (B, d) and item vectors (n_items, d) of C_user.
            of_base: those of the sequential recommender, (B, e) and (n_items, e).

        Returns:
            User states (B, d + e) and item vectors (n_items, d + e), float32.
        """
        (states, items), (further_states, further_items) = of_model, of_base
        scaled = further_states.to(states.device, torch.float32) * float(self.weight)
        return (
            torch.cat([states.float(), scaled], dim=1),
            torch.cat([items.float(), further_items.to(items.device, torch.float32)], dim=1),
        )


@dataclass(frozen=True)
class _Users:
    """Users with validation events, as two systems score them.

    Attributes:
        vectors: of each system, user states (B, d) and item vectors (n_items, d).
        known: users (K,), of 0 .. B - 1, and items (K,) of the events that are input.
        targets: users (T,) and items (T,) of the validation events.
    """

    vectors: Sequence[tuple[Tensor, Tensor]]
    known: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]

    def nll_and_gradient(self, scales: Tensor) -> Tensor:
        """The NLL of the events at some scales (2,), and its gradient: float64 (3,)."""
        scores = torch.stack(
            [(states.float() @ items.float().T).double().cpu() for states, items in self.vectors]
        )
        of_targets = scores[:, *self.targets]  # (2, T)
        logits = torch.einsum("s,sui->ui", scales, scores).index_put(
            self.known, torch.tensor(-torch.inf, dtype=torch.float64)
        )
        n_events = torch.bincount(self.targets[0], minlength=len(logits)).double()  # (B,)
        normalisers = logits.logsumexp(1)
        shares = (logits - normalisers[:, None]).exp() * n_events[:, None]
        nll = n_events @ normalisers - scales @ of_targets.sum(1)
        return torch.cat([nll[None], torch.einsum("ui,sui->s", shares, scores) - of_targets.sum(1)])


def fitted_score(
    model: InnerProductRecommender, base: InnerProductRecommender, dataset: Dataset, accelerator: Accelerator
) -> SequentialScore | None:
    """The score with the weight of the greatest likelihood of the validation events.

    The probability of an item is softmax(a x score of C_user + b x score of the sequential recommender) over
    the items that are not the user's input. a and b, none below 0, maximise the likelihood. w is b / a, and
    `LARGEST` at most.

    Args:
        model: trained, without a sequential score.
        base: the sequential recommender.
        dataset: with validation events; those of at most `model.most_validated_users` users are used.
        accelerator: of the processes, which share the users. All get the same weight.

    Returns:
        None if b is 0.

    Raises:
        ValueError: no user with validation events has a history.
    """
    shared = list(_shared_users((model, base), dataset, accelerator))
    n_events = sum(gathered(sum(len(users.targets[0]) for users in shared), accelerator))

    def mean_nll(scales: np.ndarray) -> tuple[float, np.ndarray]:
        sums = sum(
            (users.nll_and_gradient(torch.from_numpy(scales)) for users in shared), torch.zeros(3).double()
        )
        of_all = np.sum(gathered(sums.numpy(), accelerator), axis=0) / n_events
        return float(of_all[0]), of_all[1:]

    def fit(*used: bool) -> OptimizeResult:
        bounds = [(0.0, None if each else 0.0) for each in used]
        return minimize(mean_nll, np.array(used, dtype=float), jac=True, bounds=bounds, method="L-BFGS-B")

    both, model_alone, base_alone = fit(True, True), fit(True, False), fit(False, True)
    a, b = both.x
    score = SequentialScore()
    score.weight.fill_(min(b / a, LARGEST) if a else LARGEST)
    if accelerator.is_main_process:
        log.info(
            "score of the sequential system: weight %.3g: NLL of a validation event %.4f; of the language "
            "model alone %.4f, of the sequential system alone %.4f",
            *(float(score.weight) if b else 0.0, both.fun, model_alone.fun, base_alone.fun),
        )
    return score if b else None


@torch.no_grad()
def _shared_users(
    systems: Sequence[InnerProductRecommender], dataset: Dataset, accelerator: Accelerator
) -> Iterator[_Users]:
    """The users with validation events and a history that this process takes, in batches."""
    users, task = users_to_validate(dataset, systems[0].most_validated_users), dataset.task("validation")
    # In whole batches, so that the weight does not depend on the number of processes. Those of one process
    # are the batches of validation, whose vectors may have been kept.
    users = users[share(len(users), USERS_AT_ONCE, accelerator)]
    at_once = max(1, SCORES_AT_ONCE // dataset.n_items)
    catalogue: list[Tensor] = []
    for start in range(0, len(users), USERS_AT_ONCE):
        batch = users[start : start + USERS_AT_ONCE]
        vectors = [system._vectors(*system._checked(batch, task.input), task.input) for system in systems]
        catalogue = catalogue or [items for _, items in vectors]  # those of later batches are equal
        for first in range(0, len(batch), at_once):
            part = slice(first, first + at_once)
            known, targets = (
                events.interactions.histories(batch[part]) for events in (task.masked, task.held_out)
            )
            yield _Users(
                [(states[part], items) for (states, _), items in zip(vectors, catalogue, strict=True)],
                (torch.from_numpy(known.rows), torch.from_numpy(known.values)),
                (torch.from_numpy(targets.rows), torch.from_numpy(targets.values)),
            )
