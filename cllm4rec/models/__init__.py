"""Systems. A system is one file here and one line in `SYSTEMS`."""

import importlib
from pathlib import Path

from cllm4rec.models.base import Recommender
from cllm4rec.training.checkpoint import RunFolder

SYSTEMS = {  # name -> module and class, imported when asked for
    "cllm4rec": ("cllm4rec.models.cllm4rec", "CLLM4Rec"),
    "sasrec": ("cllm4rec.models.sasrec", "SASRec"),
    "gru4rec": ("cllm4rec.models.gru4rec", "GRU4Rec"),
    "ials": ("cllm4rec.models.ials", "IALS"),
    "ease": ("cllm4rec.models.ease", "EASE"),
    "itemknn": ("cllm4rec.models.itemknn", "ItemKNN"),
    "popularity": ("cllm4rec.models.popularity", "Popularity"),
}


def system_class(name: str) -> type[Recommender]:
    """The class of a system.

    Raises:
        ValueError: there is no system of that name.
    """
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is unknown: take one of {', '.join(SYSTEMS)}")
    module, class_name = SYSTEMS[name]
    found: type[Recommender] = getattr(importlib.import_module(module), class_name)
    return found


def load_stage(folder: RunFolder, stage: str | None = None) -> Recommender:
    """The model of a run: the best weights of a stage, of the newest if not given."""
    return system_class(folder.about["system"]).load(folder.stage_folder(stage))


def load(run: str | Path) -> Recommender:
    """The model of a run folder: its newest stage, best epoch."""
    return load_stage(RunFolder.open(run))
