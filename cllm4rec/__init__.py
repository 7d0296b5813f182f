"""Language models that know users and items. Names are imported when first used."""

import sys

if sys.argv[:1] == ["-m"] and any(one.removeprefix("-m").startswith("cllm4rec.") for one in sys.orig_argv):
    from cllm4rec.interruption import INTERRUPTION  # python -m cllm4rec.COMMAND, whose libraries take a second to import

    INTERRUPTION.end_at_once()

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Dataset": "cllm4rec.data.dataset",
    "build_dataset": "cllm4rec.data.preparation",
    "measure": "cllm4rec.evaluation",
    "bootstrap_interval": "cllm4rec.evaluation",
    "Recommender": "cllm4rec.models.base",
    "load": "cllm4rec.models",
    "CLLM4Rec": "cllm4rec.models.cllm4rec",
    "CLLM4RecConfig": "cllm4rec.models.configs",
    "RSLLM": "cllm4rec.models.rsllm",
    "RSLLMConfig": "cllm4rec.models.configs",
    "SASRec": "cllm4rec.models.sasrec",
    "EASE": "cllm4rec.models.ease",
    "IALS": "cllm4rec.models.ials",
    "ItemKNN": "cllm4rec.models.itemknn",
    "Popularity": "cllm4rec.models.popularity",
    "TrainConfig": "cllm4rec.training.config",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cllm4rec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
