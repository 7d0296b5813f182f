"""The table of systems, and loading the model of a run or of a model folder."""

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.files.damage import reading
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
    "bsarec": _system("sequential.bsarec:BSARec", "sequential.config:BSARecConfig"),
    "multvae": _system("autoencoders.multvae:MultVAE", "autoencoders.config:MultVAEConfig"),
    "recvae": _system("autoencoders.recvae:RecVAE", "autoencoders.config:RecVAEConfig"),
    "bag": _system("pooling.bag:Bag", "pooling.config:BagConfig"),
    "alpharec": _system("pooling.alpharec:AlphaRec", "pooling.config:AlphaRecConfig"),
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
    """The best model of a stage of a run. By default it recommends to the users of the run's dataset.

    Args:
        folder: the run.
        stage: pretrain or finetune; by default the last one.
        backbone: folder, GGUF file or name of the run's frozen backbone, if it has moved.
        verify: whether the weights are read whole and compared with their hash; by default only their size
            and header are compared.

    Raises:
        ValueError: the run has no frozen backbone, or the backbone in that folder differs.
    """
    name = folder.description.system
    moved = _moved(name, backbone)
    stage_folder = folder.stage_folder(stage)
    folder.check_stage(stage_folder.name)
    model = system_class(name).load(stage_folder, verify, moved)
    model.source = folder
    return model


def load(
    path: str | Path | RunFolder,
    dataset: "Dataset | str | Path | None" = None,
    backbone: str | Path | None = None,
    verify: bool = False,
) -> "Recommender":
    """The model in a run folder (the best weights of its last stage), or in a folder that `save` wrote.

    Adapters of a backbone are merged into its weights.

    Args:
        path: the folder.
        dataset: the dataset on which the model was trained, or its folder; `recommend` then reads its
            events. By default it reads those of the run's dataset, from the folder that the run names. Ids,
            events, texts and split are compared with those of a run. A model folder has ids only: its users
            and items are compared, not their events.
        backbone, verify: as in `load_stage`.

    Raises:
        ValueError: there is no model, or a run was trained on another dataset or split, or a model on other
            users or items.
    """
    from cllm4rec.data.loading import as_dataset

    run = path if isinstance(path, RunFolder) else RunFolder(Path(path))
    is_run = (run.path / "run.json").is_file()
    model = _load_run(run, backbone, verify) if is_run else _load_folder(run.path, backbone, verify)
    model.merge_adapters()
    if dataset is not None:
        dataset = as_dataset(dataset)
        model._check_ids(dataset, str(run.path))
        if is_run:
            _check_hashes(run, dataset)
        model.source = dataset
    return model


def _check_hashes(run: RunFolder, dataset: "Dataset") -> None:
    """Raise ValueError unless the events, texts and split of a dataset are those of a run."""
    expected, found = run.description.dataset, dataset.hashes
    for name, kind in (("data_sha256", "dataset"), ("split_sha256", "split")):
        if getattr(found, name) != getattr(expected, name):
            raise ValueError(
                f"{run.path} was trained on another {kind} ({name} differs): give the dataset of its "
                "training, or train a model on this one"
            )


def _load_run(run: RunFolder, backbone: str | Path | None, verify: bool) -> "Recommender":
    """The model of a run; a warning is logged if one of its stages has not ended."""
    model = load_stage(run, backbone=backbone, verify=verify)
    used = run.stage_folder().name
    for stage in filter(run.under_way, STAGES):
        line = "%s: %s has not ended: resume it; until then its best epoch so far is used, if there is one"
        if stage == "pretrain" and used == "finetune":
            line = "%s: it was finetuned from an earlier epoch of %s, which has not ended"
        log.warning(line, run.path, stage)
    return model


def _load_folder(folder: Path, backbone: str | Path | None, verify: bool) -> "Recommender":
    """The model in a folder that `save` wrote."""
    from cllm4rec.models.storage import REMEDY, stored_system

    name = stored_system(folder)
    with reading(folder / "model.json", REMEDY):
        _registered(name)
    return system_class(name).load(folder, verify, _moved(name, backbone))


def _moved(name: str, backbone: str | Path | None) -> dict[str, str]:
    """The settings of a system that name a folder, with its new path.

    Raises:
        ValueError: the system has no backbone.
    """
    if backbone is not None and not issubclass(system_config(name), BackboneConfig):
        raise ValueError(f"{name} has no backbone: leave `backbone` out")
    return {} if backbone is None else {"backbone": str(backbone)}
