"""Train the first stage of a system into a run folder, or resume it; a base system is trained before."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator

from cllm4rec.commands.entry import log, say
from cllm4rec.commands.stage_settings import has_ended, recorded_settings, training_lock
from cllm4rec.commands.stages import dry_run_stage, run_stage
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load, system_class
from cllm4rec.models.base import Recommender
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator, wait_for_everyone
from cllm4rec.training.launched import is_main_process
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder


@dataclass(frozen=True)
class FirstStage:
    """What is trained, on what, and where.

    Attributes:
        system: name of the system.
        config: its settings.
        training: settings of training; None for a system that is fitted in one go.
        dataset: the data.
        dataset_path: folder of the data, recorded in the run.
        output: the run folder.
        how_to_resume: command that resumes after an interruption.
        preset: name of the preset that the settings come from.
        resumed: whether the stage was begun in `output`.
        moved: setting -> folder that has moved since then.
        is_base: whether it is the base system of another.
        memory: GiB that a process may take; None: a share of what is free.
    """

    system: str
    config: SystemConfig
    training: TrainConfig | None
    dataset: Dataset
    dataset_path: str
    output: Path
    how_to_resume: str
    preset: str | None = None
    resumed: bool = False
    moved: Mapping[str, str] = field(default_factory=dict)
    is_base: bool = False
    memory: float | None = None

    def model(self) -> Recommender:
        """The system before training."""
        model = system_class(self.system)(self.config)
        model.moved = self.moved
        if isinstance(model, NeuralRecommender):
            model.is_base = self.is_base
        return model

    def create_run(self) -> RunFolder:
        """Create the run folder."""
        training = None if self.training is None else asdict(self.training)
        return RunFolder.create(
            self.output,
            system=self.system,
            dataset=self.dataset,
            dataset_path=self.dataset_path,
            preset=self.preset,
            under_way={"pretrain": StageSettings(asdict(self.config), training)},
        )


def train(stage: FirstStage) -> None:
    """Train the stage into its run folder, or resume it there.

    Raises:
        SystemExit: a signal stopped the training.
        ValueError: the folder, data or settings do not allow it.
    """
    model = stage.model()
    if isinstance(model, NeuralRecommender):
        _train_network(model, stage)
        return
    model.check(stage.dataset)
    if not is_main_process():  # it is fitted in one go, by one process
        return
    folder = RunFolder.open(stage.output) if stage.resumed else stage.create_run()
    model.fit(stage.dataset)
    folder.begin_stage("pretrain", StageSettings(asdict(model.config)))
    model.save(folder.path / "pretrain")
    folder.end_stage("pretrain")
    log.info("the run is in %s", stage.output)


def _new_run(stage: FirstStage, accelerator: Accelerator) -> RunFolder:
    """Create the run folder on the main process; the others wait for it."""
    RunFolder.check_new(stage.output)
    if accelerator.is_main_process and (stage.output / "run.json").is_file():
        log.info("%s holds a run without weights: it starts anew", stage.output)
    wait_for_everyone(accelerator)
    if accelerator.is_main_process:
        stage.create_run()
    wait_for_everyone(accelerator)
    return RunFolder(stage.output)


def _train_network(model: NeuralRecommender, stage: FirstStage) -> None:
    assert stage.training is not None
    accelerator = make_accelerator()
    _check(model, stage)
    folder = RunFolder.open(stage.output) if stage.resumed else _new_run(stage, accelerator)
    if (base := model.base_system) is not None:
        model.trained_base = train_first(base, stage)
    run_stage(
        model,
        "pretrain",
        stage.dataset,
        stage.training,
        folder,
        accelerator,
        stage.how_to_resume,
        stage.memory,
    )


def _check(model: NeuralRecommender, stage: FirstStage) -> None:
    """Refuse what cannot be trained; for a resumed run, name the SHA-256 of its backbone's weights."""
    try:
        model.check(stage.dataset)
    except ValueError as error:
        saved = RunFolder(stage.output).resume_file("pretrain").describe() if stage.resumed else None
        if saved is None or saved.conditions.built_from.backbone is None:
            raise
        sha256 = saved.conditions.built_from.backbone
        raise ValueError(f"{error}; the run was begun with weights of SHA-256 {sha256}") from error


def train_first(base: Recommender, dependent: FirstStage) -> Recommender:
    """Train the base system of another into a folder of the other's run, or resume or load it there.

    Args:
        base: the base system, untrained. It takes the seed and the time limit of the other.
        dependent: the stage that needs it.

    Raises:
        ValueError: there is an interrupted run and `dependent` is not resumed, or the run has another seed,
            other data or, where `dependent` is not resumed, other settings.
    """
    output = dependent.output / base.name
    assert dependent.training is not None
    seed = dependent.training.seed
    stage = replace(
        dependent,
        system=base.name,
        config=base.config,
        training=base.config.base_training(dependent.training),
        output=output,
        preset=None,
        resumed=False,
        moved={},
        is_base=True,
    )
    with training_lock(output, dry_run=False):
        if (output / "run.json").is_file():
            folder = RunFolder.open(output)
            if not dependent.resumed:
                folder.refuse_interrupted("pretrain")
            if settings := recorded_settings(folder, "pretrain"):
                config, training = settings
                if training.seed != seed:
                    raise ValueError(
                        f"{output} was trained with `seed` {training.seed}, not {seed}: remove it, or give "
                        "that seed"
                    )
                if config != base.config and not dependent.resumed:
                    raise ValueError(
                        f"{output} was trained with other settings: remove it, or name it by `sequential`"
                    )
                dataset = folder.dataset(dependent.dataset_path)
                if has_ended(folder, "pretrain"):
                    return load(output)
                stage = replace(stage, config=config, training=training, dataset=dataset, resumed=True)
        train(stage)
    return load(output)


def dry_run(stage: FirstStage) -> None:
    """Print what training would take, that of a base system first."""
    model, dataset, training = stage.model(), stage.dataset, stage.training
    if not isinstance(model, NeuralRecommender):
        say(f"{model.name} is fitted in one go: there are no steps to time")
        return
    assert training is not None
    model.check(dataset)
    accelerator = make_accelerator()
    if (base := model.base_system) is not None:
        assert isinstance(base, NeuralRecommender)
        base_training = base.config.base_training(training)
        dry_run_stage(base, "pretrain", dataset, base_training, accelerator, stage.memory)
        say("\nand then, on it:\n")
        model.trained_base = base
    dry_run_stage(model, "pretrain", dataset, training, accelerator, stage.memory)
