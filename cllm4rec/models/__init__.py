"""Systems. A system is one file here and one line in `SYSTEMS`."""

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cllm4rec.models import configs
from cllm4rec.models.configs import SystemConfig
from cllm4rec.training.checkpoint import STAGES, RunFolder

if TYPE_CHECKING:  # the table below is read where no system is run
    from cllm4rec.data.dataset import Dataset
    from cllm4rec.models.base import Recommender

log = logging.getLogger("cllm4rec")

SYSTEMS: dict[str, tuple[str, str, type[SystemConfig]]] = {  # name -> module and class, imported when asked for; settings
    "cllm4rec": ("cllm4rec.models.cllm4rec", "CLLM4Rec", configs.CLLM4RecConfig),
    "rsllm": ("cllm4rec.models.rsllm", "RSLLM", configs.RSLLMConfig),
    "sasrec": ("cllm4rec.models.sasrec", "SASRec", configs.SASRecConfig),
    "gru4rec": ("cllm4rec.models.gru4rec", "GRU4Rec", configs.SequentialConfig),
    "ials": ("cllm4rec.models.ials", "IALS", configs.IALSConfig),
    "ease": ("cllm4rec.models.ease", "EASE", configs.EASEConfig),
    "itemknn": ("cllm4rec.models.itemknn", "ItemKNN", configs.ItemKNNConfig),
    "popularity": ("cllm4rec.models.popularity", "Popularity", configs.PopularityConfig),
}


def system_settings(name: str) -> type[SystemConfig]:
    """The settings of a system, without the libraries that run it.

    Raises:
        ValueError: there is no system of that name.
    """
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is unknown: take one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name][2]


def system_class(name: str) -> "type[Recommender]":
    """The class of a system.

    Raises:
        ValueError: there is no system of that name.
    """
    system_settings(name)
    module, class_name, _ = SYSTEMS[name]
    found: type[Recommender] = getattr(importlib.import_module(module), class_name)
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
    if backbone is not None and not issubclass(system_settings(name), configs.BackboneConfig):
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
        log.warning("%s: %s has not ended: go on with --resume; until then its best epoch so far, if any, is taken", run, stage)
    if train is not None:
        alike = train.user_ids.ids.equals(model.user_ids.ids) and train.item_ids.ids.equals(model.item_ids.ids)
        noted = folder.about["dataset"]["split_sha256"]
        if not alike or train.about.get("split_sha256", noted) != noted:
            raise ValueError(f"{run} was trained on other data or another split: train it on this dataset")
    return model
