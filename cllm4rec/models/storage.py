"""The model folder: settings, ids, items and weights of a fitted system, checked when it is loaded."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Never, Self

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from safetensors.torch import load_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap
from cllm4rec.data.storage import ITEMS, check_columns, checked_items, write_items
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import link_file, read_folder, replace_folder
from cllm4rec.files.manifest import check_manifest, read_manifest, write_manifest
from cllm4rec.files.schema import json_text, read_json
from cllm4rec.messages import counted, escaped, shorten
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.description import FORMAT_VERSION, ModelDescription, Shapes
from cllm4rec.training.run_folder import RunFolder

MARKER, WEIGHTS = "model.json", "model.safetensors"
REMEDY = "train this stage again"


def stored_system(folder: Path) -> str:
    """The name of the system whose model a folder holds.

    Raises:
        ValueError: it holds no model, or model.json is damaged or of another format version.
    """

    def read(current: Path) -> str:
        if not (current / MARKER).is_file():
            raise ValueError(
                f"{current} is not a run folder (no run.json), nor a model folder (no {MARKER}): name one "
                "that cllm4rec pretrain or a model's method save wrote"
            )
        with reading(current, REMEDY):
            description: ModelDescription = read_json(current / MARKER, ModelDescription, FORMAT_VERSION)
        return description["system"]

    return read_folder(folder, read)


class StoredModel(ABC):
    """A fitted system that can be saved and loaded.

    Attributes:
        name: key of the system in `SYSTEMS`.
        config_class: class of its settings.
        user_ids, item_ids: ids of the training set.
        items: one row per item of the training set: `item_id` and text columns.
        tie_order: int64 (n_items,), that of the training set (`Dataset.tie_order`).
        has_history: bool (n_users,), whether a user has training events. Others are served as new users.
        source: the dataset it was fitted on, or the run that names its folder; None for neither. It is not
            saved: the model folder holds no events.
        moved: setting that names a folder -> the folder's new path, if it has moved.
        config: the settings in use.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[SystemConfig]]
    user_ids: IdMap
    item_ids: IdMap
    items: pl.DataFrame
    tie_order: np.ndarray
    has_history: np.ndarray
    source: Dataset | RunFolder | None = None
    moved: Mapping[str, str] = {}

    def __init__(self, config: Any = None, **settings: Never) -> None:
        if settings:
            name, cls, config_cls = next(iter(settings)), type(self).__name__, self.config_class.__name__
            raise TypeError(f"`{name}` is no argument of {cls}: give {cls}({config_cls}({name}=...))")
        self.config = self.config_class() if config is None else config
        self._check_config(self.config)

    def __repr__(self) -> str:
        """The settings that differ from their defaults, and whether it is fitted."""
        changed = [
            f"{field.name}={getattr(self.config, field.name)!r}"
            for field in fields(self.config)
            if getattr(self.config, field.name) != field.default
        ]
        fitted = "not fitted"
        if self._is_fitted:
            fitted = f"fitted on {counted(len(self.user_ids), 'user')}, {counted(len(self.item_ids), 'item')}"
        return f"<{type(self).__name__}({self.config_class.__name__}({', '.join(changed)})), {fitted}>"

    def _check_config(self, config: object) -> None:
        """Raise ValueError unless these are settings of this system."""
        if type(config) is not self.config_class:  # a subclass has settings that could not be loaded
            raise ValueError(
                f"{shorten(escaped(repr(config)))} is no config of {self.name}: give "
                f"{self.config_class.__name__}(...)"
            )

    @property
    def _is_fitted(self) -> bool:
        """Whether it was fitted, built or loaded."""
        return hasattr(self, "item_ids")

    def _check_fitted(self) -> None:
        """Raise ValueError unless it was fitted, built or loaded."""
        if not self._is_fitted:
            raise ValueError(
                f"this {type(self).__name__} is not fitted: call its method fit, or load a model"
            )

    def _check_items(self, dataset: Dataset) -> None:
        """Raise ValueError unless the items of a dataset are those of training, in the same order."""
        _check_same_ids("item", self.item_ids, dataset.item_ids)

    def _check_ids(self, dataset: Dataset, model: str = "the model") -> None:
        """Refuse a dataset over other users or items than those of training, or in another order.

        Args:
            dataset: to compare.
            model: its name in errors.

        Raises:
            ValueError: names the first id that differs.
        """
        _check_same_ids("user", self.user_ids, dataset.user_ids, model)
        _check_same_ids("item", self.item_ids, dataset.item_ids, model)

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """The learned arrays, by name."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Set the learned arrays to those that `_arrays` returned."""

    def save(self, folder: str | Path) -> None:
        """Write settings, ids, items and weights into a folder, whole or not at all.

        A model there is replaced.

        Raises:
            ValueError: the model is not fitted, or the folder is not that of a model, or is being written by
                another process.
        """
        self._check_fitted()
        with replace_folder(Path(folder), MARKER) as new:
            self._write(new)

    def save_weights(self, folder: Path) -> None:
        """Replace the weights in a folder that `save` wrote. The other files are linked, not rewritten."""
        written = self._weight_files()
        linked_files = {
            name: record for name, record in read_manifest(folder).files.items() if name not in written
        }
        with replace_folder(folder, MARKER) as new:
            for name in linked_files:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                link_file(folder / name, new / name)
            self._write_weights(new)
            write_manifest(new, linked_files)

    def _write(self, folder: Path) -> None:
        """Write all files into a new folder."""
        self._write_weights(folder)
        self._write_description(folder)
        write_manifest(folder)

    def _weight_files(self) -> set[str]:
        """The files that `_write_weights` writes, relative to the folder."""
        return {WEIGHTS}

    def _write_weights(self, folder: Path) -> None:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}, folder / WEIGHTS
        )

    @classmethod
    def load(cls, folder: str | Path, verify: bool = False, moved: Mapping[str, str] | None = None) -> Self:
        """Load a model that `save` wrote. Its files are compared with the hashes of the manifest.

        Args:
            folder: the folder.
            verify: whether the weights are read whole and compared with their hash. They are memory-mapped;
                by default only their size and header are compared.
            moved: setting that names a folder -> the folder's new path, if it has moved.

        Raises:
            ValueError: a file is missing or damaged, or the folder holds the model of another system.
        """
        return read_folder(Path(folder), lambda current: cls._load(current, verify, moved or {}))

    @classmethod
    def _load(cls, folder: Path, verify: bool, moved: Mapping[str, str]) -> Self:
        with reading(folder, REMEDY):
            # before the manifest, whose format may differ in another version
            description: ModelDescription = read_json(folder / MARKER, ModelDescription, FORMAT_VERSION)
            check_manifest(folder, whole=verify)
            if description["system"] != cls.name:
                raise ValueError(
                    f"{MARKER}: it is a model of system {description['system']!r}, not {cls.name}"
                )
            model = cls(cls.config_class.from_record(description["config"], f"{MARKER}, key config"))
            model.moved = moved
            model._read_ids(folder)
            mapped = load_file(folder / WEIGHTS)  # pages of the file, which are read on access
            arrays = {name: tensor.numpy() for name, tensor in mapped.items()}
        model._prepare(folder, description, {name: array.shape for name, array in arrays.items()})
        with reading(folder, REMEDY):
            model._restore(arrays)
        return model

    def _prepare(self, folder: Path, description: ModelDescription, shapes: Shapes) -> None:  # noqa: B027
        """Build the network that the weights are loaded into. Systems without a network do nothing.

        Args:
            folder: of the model.
            description: the content of model.json.
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
        write_items(folder / ITEMS, self.items, self.tie_order)

    def _read_ids(self, folder: Path) -> None:
        users, items = (pl.read_parquet(folder / name) for name in ("users.parquet", ITEMS))
        check_columns("users.parquet", users, {"user_id": None, "has_history": pl.Boolean}, {})
        self.user_ids, self.has_history = IdMap(users["user_id"]), users["has_history"].to_numpy()
        self.items, self.tie_order = checked_items(items)
        self.item_ids = IdMap(self.items["item_id"])

    def _source_dataset(self) -> Dataset:
        """The dataset of training. That of a run is read from its folder once.

        Raises:
            ValueError: it is not known, or no longer in its folder.
        """
        if self.source is None:
            raise ValueError(
                "the model was loaded from a folder that names no dataset: give `dataset`, which has the "
                "events of `users`, or give `histories`"
            )
        if not isinstance(self.source, Dataset):
            self.source = self.source.dataset()
        return self.source

    def _learn_ids(self, dataset: Dataset) -> None:
        """Keep the ids and the items of a dataset, and which of its users have training events."""
        self.user_ids, self.item_ids = dataset.user_ids, dataset.item_ids
        self.items, self.tie_order = dataset.items, dataset.tie_order
        self.has_history = np.diff(dataset.train.interactions.indptr) > 0
        self.source = dataset


def _check_same_ids(kind: str, trained: IdMap, given: IdMap, model: str = "the model") -> None:
    """Compare the ids of training with those of a dataset.

    Args:
        kind: "user" or "item".
        trained, given: the ids of training and of the dataset.
        model: its name in errors.

    Raises:
        ValueError: names the first id that differs.
    """
    if trained.is_same(given):
        return
    types_differ = (trained.ids.dtype == pl.String) != (given.ids.dtype == pl.String)
    n_common = min(len(trained), len(given))
    differ = (trained.ids[:n_common].cast(pl.String) != given.ids[:n_common].cast(pl.String)).arg_true()
    number = 0 if types_differ else next(iter(differ), n_common)

    def named(ids: pl.Series) -> str:
        if number >= len(ids):
            return "missing"
        types = {True: " (text)", False: " (a whole number)"} if types_differ else {}
        return shorten(repr(ids[number])) + types.get(ids.dtype == pl.String, "")

    raise ValueError(
        f"{model} was trained on other {kind}s: number {number} is {named(trained.ids)}, in this dataset "
        f"{named(given.ids)}: give the dataset of its training, or train a model on this one"
    )
