"""Recommender: what every system offers. Masking, top k, saving and loading are written here once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap
from cllm4rec.data.storage import check_columns
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import link_file, read_folder, replace_folder
from cllm4rec.files.manifest import check_manifest, read_manifest, write_manifest
from cllm4rec.files.schema import check_version, checked, json_text, read_json
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.description import FORMAT_VERSION, ModelDescription
from cllm4rec.ranking import TopK

MARKER, WEIGHTS = "model.json", "model.safetensors"
REMEDY = "train this stage again"
Shapes = Mapping[str, tuple[int, ...]]


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
    has_history: (
        np.ndarray
    )  # bool (n_users,): whether a user had training events; one without is served as a new one
    item_ids: IdMap
    moved: Mapping[str, str] = {}  # settings that name a folder which is elsewhere now -> that folder

    def __init__(self, config: Any = None) -> None:
        self.requested_config = self.config_class() if config is None else config
        self.config = self.requested_config  # the one in use: what fitting chose is filled in

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
            raise ValueError(
                f"there is no user {odd[0]} in data of {seen.n_users:,} users: numbers are those of its user_ids"
            )
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

    def recommend(
        self, users: np.ndarray, seen: Dataset, k: int = 10, masked: Dataset | None = None
    ) -> Recommendations:
        """The k best items of each user that are not among its events in `masked` (`seen` if not given)."""
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least one item")
        users, known = self._checked(users, seen)
        excluded = (masked or seen).interactions.histories(users)
        order = np.argsort(excluded.values, kind="stable")
        rows, items = excluded.rows[order], excluded.values[order]
        best: TopK | None = None
        for first, scores in self._blocks(users, known, seen):
            if best is None:
                best = TopK(
                    len(users), min(k, seen.n_items), torch.from_numpy(seen.tie_order).to(scores.device)
                )
            here = slice(*np.searchsorted(items, [first, first + scores.shape[1]]))
            scores[torch.from_numpy(rows[here]), torch.from_numpy(items[here] - first)] = -torch.inf
            best.offer(scores, first)
        assert best is not None
        return Recommendations(users, best.items.cpu().numpy(), best.scores.cpu().numpy())

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
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
        """Write configuration, ids and weights as a folder, whole or not at all. An older model there is replaced.

        Raises:
            ValueError: the folder is something else, or is being written by another process.
        """
        with replace_folder(Path(folder), MARKER) as new:
            self._write(new)

    def save_weights(self, folder: Path) -> None:
        """Write new weights into a folder that `save` wrote, as a whole; its other files stay."""
        records = {name: record for name, record in read_manifest(folder).files.items() if name != WEIGHTS}
        with replace_folder(folder, MARKER) as new:
            for name in records:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                link_file(folder / name, new / name)
            self._write_weights(new)
            write_manifest(new, records)

    def _write(self, folder: Path) -> None:
        """Write all files into a new folder."""
        self._write_weights(folder)
        self._write_description(folder)
        write_manifest(folder)

    def _write_weights(self, folder: Path) -> None:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}, folder / WEIGHTS
        )

    @classmethod
    def load(cls, folder: str | Path, verify: bool = False, moved: Mapping[str, str] | None = None) -> Self:
        """Read the files that `save` wrote, compared with the manifest of their hashes.

        Args:
            folder: the folder.
            verify: read the weights whole and compare them with their hash too. They are mapped, so that without it
                only their size and header are compared.
            moved: settings that name a folder which is elsewhere now -> that folder.

        Raises:
            ValueError: a file is missing or damaged, or the folder holds the model of another system.
        """
        return read_folder(Path(folder), lambda found: cls._load(found, verify, moved or {}))

    @classmethod
    def _load(cls, folder: Path, verify: bool, moved: Mapping[str, str]) -> Self:
        with reading(folder, REMEDY):
            check_version(folder / MARKER, FORMAT_VERSION)
            check_manifest(folder, whole=verify)
            described: ModelDescription = read_json(folder / MARKER, ModelDescription)
            if described["system"] != cls.name:
                raise ValueError(f"{MARKER}: it is a model of system {described['system']!r}, not {cls.name}")
            model = cls(checked(described["config"], cls.config_class, f"{MARKER}, key config"))
            model.moved = moved
            model._read_ids(folder)
            mapped = load_file(folder / WEIGHTS)  # the file's pages, read when they are touched
            arrays = {name: tensor.numpy() for name, tensor in mapped.items()}
        model._prepare(folder, described, {name: array.shape for name, array in arrays.items()})
        with reading(folder, REMEDY):
            model._restore(arrays)
        return model

    def _prepare(self, folder: Path, described: ModelDescription, shapes: Shapes) -> None:  # noqa: B027 - most have nothing
        """Make what the weights are filled into.

        Args:
            folder: of the model.
            described: the content of model.json.
            shapes: of the arrays in model.safetensors, by name.
        """

    def _describe(self) -> dict[str, Any]:
        """The content of model.json."""
        return {"format_version": FORMAT_VERSION, "system": self.name, "config": asdict(self.config)}

    def _write_description(self, folder: Path) -> None:
        (folder / MARKER).write_text(json_text(self._describe()), encoding="utf-8")
        pl.DataFrame({"user_id": self.user_ids.ids, "has_history": self.has_history}).write_parquet(
            folder / "users.parquet"
        )
        pl.DataFrame({"item_id": self.item_ids.ids}).write_parquet(folder / "items.parquet")

    def _read_ids(self, folder: Path) -> None:
        users, items = (pl.read_parquet(folder / name) for name in ("users.parquet", "items.parquet"))
        check_columns("users.parquet", users, {"user_id": None, "has_history": pl.Boolean}, {})
        check_columns("items.parquet", items, {"item_id": None}, {})
        self.user_ids, self.has_history = IdMap(users["user_id"]), users["has_history"].to_numpy()
        self.item_ids = IdMap(items["item_id"])

    def _learn_ids(self, train: Dataset) -> None:
        self.user_ids, self.item_ids = train.user_ids, train.item_ids
        self.has_history = np.diff(train.interactions.indptr) > 0

    def _known_users(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Numbers of some of the seen dataset's users (B,) among the trained users, -1 if new, int64 (B,)."""
        same = seen.user_ids.ids.equals(self.user_ids.ids)
        known = users if same else self.user_ids.find(seen.user_ids.names(users))
        met = known >= 0
        return np.where(met & self.has_history[known], known, -1) if met.any() else np.full_like(known, -1)
