"""The table of systems, and loading the model of a run."""

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.models.config import SystemConfig
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.training.run_folder import STAGES, RunFolder

if TYPE_CHECKING:  # --help reads the table and waits for no library
    from cllm4rec.data.dataset import Dataset
    from cllm4rec.models.base import Recommender

log = logging.getLogger("cllm4rec")


@dataclass(frozen=True)
class System:
    """Import paths of a system. Neither module is imported before it is needed.

    Attributes:
        recommender: `module:class` of the `Recommender`.
        config: `module:class` of its settings. This module imports no torch.
    """

    recommender: str
    config: str


def _system(recommender: str, config: str) -> System:
    return System(f"cllm4rec.models.{recommender}", f"cllm4rec.models.{config}")


SYSTEMS = {
    "cllm4rec": _system("cllm4rec.recommender:CLLM4Rec", "cllm4rec.config:CLLM4RecConfig"),
    "rsllm": _system("rsllm.recommender:RSLLM", "rsllm.config:RSLLMConfig"),
    "sasrec": _system("sequential.sasrec:SASRec", "sequential.config:SASRecConfig"),
    "gru4rec": _system("sequential.gru4rec:GRU4Rec", "sequential.config:SequentialConfig"),
    "ials": _system("baselines.ials:IALS", "baselines.config:IALSConfig"),
    "ease": _system("baselines.ease:EASE", "baselines.config:EASEConfig"),
    "itemknn": _system("baselines.itemknn:ItemKNN", "baselines.config:ItemKNNConfig"),
    "popularity": _system("baselines.popularity:Popularity", "baselines.config:PopularityConfig"),
}


def _imported(path: str) -> Any:
    """The class at a path `module:class`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _registered(name: str) -> System:
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is unknown: take one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def system_config(name: str) -> type[SystemConfig]:
    """The settings class of a system. This imports no torch.

    Raises:
        ValueError: there is no system of that name.
    """
    config_class: type[SystemConfig] = _imported(_registered(name).config)
    return config_class


def system_class(name: str) -> "type[Recommender]":
    """The class of a system.

    Raises:
        ValueError: there is no system of that name.
    """
    recommender_class: type[Recommender] = _imported(_registered(name).recommender)
    return recommender_class


def load_stage(
    folder: RunFolder, stage: str | None = None, backbone: str | Path | None = None, verify: bool = False
) -> "Recommender":
    """The best model of a stage of a run.

    Args:
        folder: the run.
        stage: pretrain or finetune; by default the last one.
        backbone: folder of the run's frozen backbone, if it has moved.
        verify: whether the weights are read whole and compared with their hash; by default only their size
            and header are compared.

    Raises:
        ValueError: the run has no frozen backbone, or the backbone in that folder differs.
    """
    name = folder.description.system
    if backbone is not None and not issubclass(system_config(name), BackboneConfig):
        raise ValueError(f"{name} has no backbone: leave `backbone` out")
    moved = {} if backbone is None else {"backbone": str(backbone)}
    stage_folder = folder.stage_folder(stage)
    folder.check_stage(stage_folder.name)
    return system_class(name).load(stage_folder, verify, moved)


def load(
    run: str | Path | RunFolder,
    train: "Dataset | None" = None,
    backbone: str | Path | None = None,
    verify: bool = False,
) -> "Recommender":
    """The model of a run folder: the best epoch of its last stage.

    Args:
        run: the folder, or its path.
        train: the dataset on which the model must have been trained, if it matters.
        backbone, verify: as in `load_stage`.

    Raises:
        ValueError: there is no model, or it was trained on other users, other items or another split.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    model = load_stage(folder, backbone=backbone, verify=verify)
    for stage in filter(folder.under_way, STAGES):
        log.warning(
            "%s: %s has not ended: resume it; until then its best epoch so far is used, if there is one",
            folder.path,
            stage,
        )
    if train is not None:
        same_users = train.user_ids.ids.equals(model.user_ids.ids)
        same_items = train.item_ids.ids.equals(model.item_ids.ids)
        stored = train.stored_hashes
        split_sha256 = folder.description.dataset.split_sha256
        same_split = stored is None or stored.split_sha256 == split_sha256
        if not (same_users and same_items and same_split):
            raise ValueError(
                f"{folder.path} was trained on other data or another split: train it on this dataset"
            )
    return model
