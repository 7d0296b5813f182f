"""The systems: one line each in `SYSTEMS`, and how the model of a run is loaded."""

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.models.config import SystemConfig
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.training.run_folder import STAGES, RunFolder

if TYPE_CHECKING:  # the table below is read where no system is run
    from cllm4rec.data.dataset import Dataset
    from cllm4rec.models.base import Recommender

log = logging.getLogger("cllm4rec")


@dataclass(frozen=True)
class System:
    """Where a system is found; neither module is imported before it is needed.

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
    """The class that a `module:class` path names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _registered(name: str) -> System:
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is unknown: take one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def system_config(name: str) -> type[SystemConfig]:
    """The settings class of a system; torch is not imported.

    Raises:
        ValueError: there is no system of that name.
    """
    found: type[SystemConfig] = _imported(_registered(name).config)
    return found


def system_class(name: str) -> "type[Recommender]":
    """The class of a system.

    Raises:
        ValueError: there is no system of that name.
    """
    found: type[Recommender] = _imported(_registered(name).recommender)
    return found


def load_stage(
    folder: RunFolder, stage: str | None = None, backbone: str | Path | None = None, verify: bool = False
) -> "Recommender":
    """The model of a run: the best weights of a stage, of the newest if not given.

    Args:
        folder: the run.
        stage: pretrain or finetune.
        backbone: where the frozen backbone of the run is, if it has moved.
        verify: read the weights whole and compare them with their hash, not only their size and header.

    Raises:
        ValueError: the run has no such backbone, or the weights in that folder are others.
    """
    name = folder.about["system"]
    if backbone is not None and not issubclass(system_config(name), BackboneConfig):
        raise ValueError(f"{name} has no backbone: leave --backbone out")
    moved = {} if backbone is None else {"backbone": str(backbone)}
    found = folder.stage_folder(stage)
    folder.check_stage(found.name)
    return system_class(name).load(found, verify, moved)


def load(
    run: str | Path, train: "Dataset | None" = None, backbone: str | Path | None = None, verify: bool = False
) -> "Recommender":
    """The model of a run folder: its newest stage, best epoch.

    Args:
        run: the folder.
        train: a dataset that it has to be trained on.
        backbone, verify: as `load_stage` takes them.

    Raises:
        ValueError: there is none, or it was trained on other users, items or parts than `train`, where that is given.
    """
    folder = RunFolder.open(run)
    model = load_stage(folder, backbone=backbone, verify=verify)
    for stage in filter(folder.under_way, STAGES):
        log.warning(
            "%s: %s has not ended: go on with --resume; until then its best epoch so far, if any, is taken",
            run,
            stage,
        )
    if train is not None:
        alike = train.user_ids.ids.equals(model.user_ids.ids) and train.item_ids.ids.equals(
            model.item_ids.ids
        )
        noted = folder.about["dataset"]["split_sha256"]
        stored = train.stored_hashes
        if not alike or (stored is not None and stored.split_sha256 != noted):
            raise ValueError(f"{run} was trained on other data or another split: train it on this dataset")
    return model
