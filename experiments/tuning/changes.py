"""Changes of the defaults of a system, and the values of all settings with them."""

from dataclasses import asdict, dataclass
from typing import Any

from cllm4rec.commands import stage_settings
from cllm4rec.commands.flags import CommandLine
from cllm4rec.finetune import FinetuneOptions
from cllm4rec.models import system_config
from cllm4rec.models.config import SystemConfig
from cllm4rec.pretrain import PretrainOptions
from cllm4rec.training.config import TrainConfig
from experiments.tuning.domains import Settings, Value
from experiments.tuning.spaces import FIRST_STAGE, stages_of, typed_settings
from experiments.tuning.trials import TrialCommands

OPTIONS = {"pretrain": PretrainOptions, "finetune": FinetuneOptions}


@dataclass(frozen=True)
class Change:
    """Settings that differ from the defaults.

    Attributes:
        text: as typed, NAME=VALUE joined by commas; empty for the defaults themselves.
        settings: name -> value as typed.
    """

    text: str
    settings: Settings

    @classmethod
    def typed(cls, text: str, system: str) -> "Change":
        """The change of a text.

        Raises:
            SystemExit: it has another form, or names what is no setting of the system.
            ValueError: a value is not allowed, or all are those of the defaults.
        """
        change = cls(text, typed_settings(text.split(","), [system], "--changes"))
        try:
            changed = all_settings(TrialCommands(system, {}, seed=0), change.settings)
        except ValueError as error:
            raise ValueError(f"--changes {text}: {error}") from error
        if changed == all_settings(TrialCommands(system, {}, seed=0), {}):
            raise ValueError(f"--changes {text}: this is what the defaults are: leave it out")
        return change


DEFAULTS = Change("", {})


def all_settings(commands: TrialCommands, settings: Settings) -> dict[str, Value | None]:
    """The values of all settings of a trial, as its commands read them; None: chosen by fitting, or unset.

    Raises:
        ValueError: a value is not allowed.
    """
    config_class = system_config(commands.system)
    trained = [TrainConfig] if config_class.training else []
    arguments = commands.of(settings, dataset="DATASET", run="RUN")
    values: dict[str, Value | None] = {}
    before: SystemConfig | None = None
    inherited: dict[str, Any] = {}
    for stage in stages_of(commands.system):
        defaults = stage_settings.stage_defaults(commands.system, stage, None, before) | inherited
        with CommandLine(stage, arguments[stage]) as line:
            _, config, *training = line.parse("", [OPTIONS[stage], config_class, *trained], defaults)
            if before is not None:
                before.check_finetuning(config)
        prefix = "" if stage == FIRST_STAGE else f"{stage}."
        for group in (config, *training):
            values |= {prefix + name: value for name, value in asdict(group).items()}
        before, inherited = config, asdict(config) | {"seed": values.get("seed")}
    return values
