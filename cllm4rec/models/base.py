"""Recommender: what every system offers. Masking, top k, saving and loading are written here once."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import IdMap
from cllm4rec.evaluation import measure
from cllm4rec.models.configs import DecayedInput, SystemConfig
from cllm4rec.ranking import TopK

Report = Callable[[str], None]


@dataclass(frozen=True)
class Recommendations:
    """Items (B, min(k, n_items)), best first, -1 where the catalogue ran out, and their scores, -inf there."""

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class Recommender(ABC):
    """A system: learns from a training set, scores the catalogue for users given the events seen.

    `seen` is an argument, not state: one model serves new histories, and evaluation cannot leak. Users and items are
    matched by their external ids, so `seen` may hold users the model never met; those are served from their history.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[SystemConfig]]
    user_ids: IdMap
    trained: np.ndarray  # bool (n_users,): whether a user had training events; one without is served as a new one
    item_ids: IdMap
    moved: Mapping[str, str] = {}  # settings that name a folder which is elsewhere now -> that folder

    def __init__(self, config: Any = None) -> None:
        self.given = self.config_class() if config is None else config
        self.config = self.given  # the one in use: what fitting chose is filled in

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that it is trained in."""
        return tuple(self.config_class.training) or ("pretrain",)

    @abstractmethod
    def fit(self, train: Dataset, validation: Dataset | None = None, *, seen: Dataset | None = None) -> Self:
        """Learn from the events of `train`, afresh; `validation` chooses what is left open, found from the events in `seen`
        (`train` if not given). Subclasses take more."""

    @abstractmethod
    def _score(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores (B, n_items), overwritten later. users (B,) number the users of `seen`, known (B,) those of the training set
        or -1."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `_arrays` gave."""

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores of the whole catalogue, float32 (B, n_items), higher is better; seen items are scored too.

        Args:
            users: numbers of users in `seen`, (B,).
            seen: the events the model may look at. Its items must be those of training, in the same order.

        Raises:
            ValueError: the items differ, or a user is unknown to the model and has no history; the message names it.
        """
        users, known = self._checked(users, seen)
        return self._score(users, known, seen)

    def _checked(self, users: np.ndarray, seen: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Users (B,) that can be scored, and their numbers in the training set or -1; the errors of `score`."""
        if not seen.item_ids.ids.equals(self.item_ids.ids):
            raise ValueError(
                f"the {seen.n_items:,} items of this data are not the {len(self.item_ids):,} items the model was "
                "trained on: use the dataset of the run"
            )
        users = np.asarray(users, dtype=np.int64)
        odd = users[(users < 0) | (users >= seen.n_users)]
        if len(odd):
            raise ValueError(f"there is no user {odd[0]} in data of {seen.n_users:,} users: numbers are those of its user_ids")
        known = self._known_users(users, seen)
        lost = users[(known < 0) & (np.diff(seen.interactions.indptr)[users] == 0)]
        if len(lost):
            raise ValueError(
                f"user {seen.user_ids.names(lost[:1])[0]!r} is unknown to the model and has no history: "
                "there is nothing to recommend from"
            )
        return users, known

    def _blocks(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> Iterator[tuple[int, Tensor]]:
        """The scores in blocks (B, W) of neighbouring items, each with the number of its first; one block, if not better."""
        yield 0, torch.from_numpy(self._score(users, known, seen))

    def recommend(self, users: np.ndarray, seen: Dataset, k: int = 10, masked: Dataset | None = None) -> Recommendations:
        """The k best items of each user that are not among its events in `masked` (`seen` if not given)."""
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least one item")
        users, known = self._checked(users, seen)
        events = (masked or seen).interactions
        own, lengths = events.histories(users)
        rows, items = np.repeat(np.arange(len(users)), lengths), events.items[own]
        order = np.argsort(items, kind="stable")
        rows, items = rows[order], items[order]
        best: TopK | None = None
        for first, scores in self._blocks(users, known, seen):
            if best is None:
                best = TopK(len(users), min(k, seen.n_items), torch.from_numpy(seen.tie_order).to(scores.device))
            here = slice(*np.searchsorted(items, [first, first + scores.shape[1]]))
            scores[torch.from_numpy(rows[here]), torch.from_numpy(items[here] - first)] = -torch.inf
            best.offer(scores, first)
        assert best is not None
        return Recommendations(users, best.items.cpu().numpy(), best.scores.cpu().numpy())

    def choose(self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores") -> np.ndarray:
        """Which of its candidates each user takes: the place of the best one, int64 (B,); -1 for an answer that names none.

        Args:
            users: numbers of users in `seen`, (B,).
            candidates: item numbers (B, C).
            by: "scores"; systems that answer in words know more ways.

        Raises:
            ValueError: the system does not know that way.
        """
        if by != "scores":
            raise ValueError(f"{self.name} chooses by scores, not by {by}: it has no words")
        own = np.take_along_axis(self.score(users, seen), candidates, axis=1)
        order = np.lexsort((seen.tie_order[candidates], -own), axis=1)
        return np.asarray(order[:, 0], dtype=np.int64)

    def recommend_batches(
        self, users: np.ndarray, seen: Dataset, k: int = 10, batch_size: int = 512
    ) -> Iterator[Recommendations]:
        """`recommend` for many users, a batch at a time; for nobody, one batch of nobody."""
        for start in range(0, max(1, len(users)), batch_size):
            yield self.recommend(users[start : start + batch_size], seen, k)

    def save(self, folder: str | Path) -> None:
        """Write configuration, ids and weights into a folder that exists."""
        self.save_weights(Path(folder) / "model.safetensors")
        self._save_description(Path(folder))

    def save_weights(self, file: Path) -> None:
        """Write what was learned as safetensors."""
        save_file({name: np.ascontiguousarray(array) for name, array in self._arrays().items()}, file)

    @classmethod
    def load(cls, folder: str | Path, moved: Mapping[str, str] | None = None) -> Self:
        """Read what `save` wrote; `moved`: settings that name a folder which is elsewhere now -> that folder.

        Raises:
            ValueError: a file is missing or damaged.
        """
        try:
            model = cls._load_description(Path(folder), moved or {})
            mapped = load_file(Path(folder) / "model.safetensors")  # the file's pages, read when they are touched
            model._restore({name: tensor.numpy() for name, tensor in mapped.items()})
        except (OSError, KeyError, json.JSONDecodeError, SafetensorError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"{folder} is damaged ({str(error).splitlines()[0]}): train this stage again") from error
        return model

    def _describe(self) -> dict[str, Any]:
        """What model.json says."""
        return {"system": self.name, "config": asdict(self.config)}

    def _save_description(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps(self._describe(), indent=2) + "\n", "utf-8")
        pl.DataFrame({"user_id": self.user_ids.ids, "trained": self.trained}).write_parquet(folder / "users.parquet")
        pl.DataFrame({"item_id": self.item_ids.ids}).write_parquet(folder / "items.parquet")

    @classmethod
    def _load_description(cls, folder: Path, moved: Mapping[str, str]) -> Self:
        described = json.loads((folder / "model.json").read_text("utf-8"))
        model = cls(cls.config_class(**described["config"]))
        model.moved = moved
        users = pl.read_parquet(folder / "users.parquet")
        model.user_ids, model.trained = IdMap(users["user_id"]), users["trained"].to_numpy()
        model.item_ids = IdMap(pl.read_parquet(folder / "items.parquet")["item_id"])
        return model

    def _learn_ids(self, train: Dataset) -> None:
        self.user_ids, self.item_ids = train.user_ids, train.item_ids
        self.trained = np.diff(train.interactions.indptr) > 0

    def _known_users(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Numbers of some of the seen dataset's users (B,) among the trained users, -1 if new, int64 (B,)."""
        same = seen.user_ids.ids.equals(self.user_ids.ids)
        known = users if same else self.user_ids.find(seen.user_ids.names(users))
        return np.where(self.trained[known] & (known >= 0), known, -1)


class OneStage(Recommender):
    """A system fitted in one go, whose settings are chosen on the validation events where they are None."""

    grid: ClassVar[tuple[dict[str, Any], ...]] = ()  # choices of the settings that fitting needs
    at_scoring: ClassVar[dict[str, tuple[Any, ...]]] = {}  # choices of those that act on scoring alone

    @abstractmethod
    def _fit(self, train: Dataset, settings: Any) -> None:
        """Learn from the training events with these settings."""

    def fit(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        report: Report = lambda line: None,
        *,
        seen: Dataset | None = None,
    ) -> Self:
        """Learn from `train`. Settings that are None are chosen by NDCG@100 on `validation` over the system's grid, with
        the events of `seen` as input (`train` if not given).

        Raises:
            ValueError: a setting is open and there are no validation events to choose it by.
        """
        self._learn_ids(train)
        unset = [name for name, value in asdict(self.given).items() if value is None]
        if not unset:
            self.config = self.given
            self._fit(train, self.config)
            return self
        if validation is None or not len(validation.interactions):
            raise ValueError(
                f"{self.name} chooses {', '.join(unset)} on validation events and there are none: "
                "give a value, or prepare with a split"
            )
        best: tuple[float, Any] = (-1.0, None)
        for alike in self._choices(unset):
            for number, settings in enumerate(alike):
                self.config = settings
                if number == 0:
                    self._fit(train, settings)
                quality = measure(self, seen or train, validation).metrics["ndcg@100"]
                chosen = {name: getattr(settings, name) for name in unset}
                report(f"{self.name} {json.dumps(chosen)}: validation ndcg@100 {quality:.4f}")
                if quality > best[0]:
                    best = (quality, settings)
        self.config = best[1]
        self._fit(train, self.config)
        return self

    def _choices(self, unset: list[str]) -> list[list[Any]]:
        """Settings to try, those that need no fitting in between side by side."""
        fitted = dict.fromkeys(tuple((name, choice[name]) for name in unset if name in choice) for choice in self.grid)
        scored = list(
            product(*([(name, value) for value in self.at_scoring[name]] for name in unset if name in self.at_scoring))
        )
        return [[replace(self.given, **dict([*one, *other])) for other in scored] for one in fitted]


DECAYS = {"decay": (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}


def weighted_history(users: np.ndarray, seen: Dataset, config: DecayedInput) -> sp.csr_matrix:
    """Histories of users (B,), weighted by their order, float32 (B, n_items)."""
    events = seen.interactions
    return (events.matrix if config.decay in (None, 1.0) else events.decayed(config.decay))[users]
