"""The settings that `experiments.tune` searches, for each system: one line a setting. Imports no torch.

A name with a dot is a setting of a later stage, `finetune.learning_rate`. The others go to pretraining.
What a new system needs is its entry in SPACES, and a new setting its line there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from cllm4rec.models import system_config
from cllm4rec.training.config import TrainConfig
from experiments.tuning.domains import Domain, Settings, choices, ratios, steps

FIRST_STAGE = "pretrain"


@dataclass(frozen=True)
class Space:
    """What is searched for a system.

    Attributes:
        system: its name.
        settings: setting -> values.
        in_time: further settings, searched where the split is in time; elsewhere histories have no order.
        fixed: settings that all trials have, the first one too, which has the defaults otherwise.
    """

    system: str
    settings: Mapping[str, Domain] = field(default_factory=dict)
    in_time: Mapping[str, Domain] = field(default_factory=dict)
    fixed: Settings = field(default_factory=dict)

    def searched(self, is_in_time: bool, fixed: Settings) -> dict[str, Domain]:
        """The settings to search on a dataset, without those that are fixed."""
        settings = {**self.settings, **(self.in_time if is_in_time else {})}
        return {name: values for name, values in settings.items() if name not in fixed}


DECAY = {"decay": steps(0.4, 1.0, 0.1, floor=0.1, ceiling=1.0)}
# Of networks that read a history from its oldest to its newest item.
ENCODER = {
    "width": ratios(32, 256, whole=True, floor=4),
    "layers": steps(1, 3, 1, whole=True, floor=1),
    "dropout": steps(0.0, 0.8, 0.1, floor=0.0, ceiling=0.9),
    "length": ratios(25, 100, whole=True, floor=1),
    "learning_rate": ratios(2.5e-4, 4e-3),
    "batch_size": ratios(32, 512, whole=True, floor=1),
}
AUTOENCODER = {
    "width": ratios(150, 1200, whole=True, floor=1),
    "latent_width": ratios(50, 400, whole=True, floor=1),
    "dropout": steps(0.0, 0.8, 0.1, floor=0.0, ceiling=0.9),
    "learning_rate": ratios(2.5e-4, 4e-3),
    "batch_size": ratios(125, 2000, whole=True, floor=1),
}

SPACES = {  # name -> space; several spaces may be of one system
    "popularity": Space("popularity"),
    "itemknn": Space(
        "itemknn",
        {"neighbours": ratios(25, 800, whole=True, floor=1), "shrinkage": ratios(1.25, 320.0)},
        in_time=DECAY,
    ),
    "ease": Space("ease", {"regularization": ratios(25.0, 1600.0)}, in_time=DECAY),
    "ease-text": Space(
        "ease",
        {
            "regularization": ratios(50.0, 1600.0),
            "prior_regularization": ratios(1.0, 256.0),
            "prior_share": steps(0.0, 1.0, 0.1, floor=0.0, ceiling=1.0),
        },
        in_time=DECAY,
        fixed={"text_prior": True},
    ),
    "ials": Space(
        "ials",
        {
            "factors": ratios(64, 1024, whole=True, floor=1),
            "regularization": ratios(10.0, 640.0),
            "alpha": ratios(2.5, 160.0),
        },
    ),
    "sasrec": Space("sasrec", {**ENCODER, "heads": choices(1, 2, 4)}),
    "gru4rec": Space("gru4rec", ENCODER),
    "bsarec": Space(
        "bsarec",
        {
            **ENCODER,
            "heads": choices(1, 2, 4),
            "frequencies": ratios(2, 16, whole=True, floor=1),
            "filter_share": steps(0.1, 0.9, 0.2, floor=0.0, ceiling=1.0),
        },
    ),
    "multvae": Space(
        "multvae",
        {
            **AUTOENCODER,
            "beta": ratios(0.05, 0.8),
            "annealing": steps(0.0, 1.0, 0.25, floor=0.0, ceiling=1.0),
        },
    ),
    "recvae": Space(
        "recvae",
        {
            **AUTOENCODER,
            "gamma": ratios(1.25e-3, 0.02),
            "encoder_passes": steps(1, 4, 1, whole=True, floor=1),
        },
    ),
    "bag": Space(
        "bag",
        {
            "width": ratios(64, 512, whole=True, floor=1),
            "mask_share": steps(0.1, 0.9, 0.1, floor=0.1, ceiling=0.9),
            "text_rate": ratios(1.0, 16.0),
            "word_dropout": steps(0.0, 0.6, 0.1, floor=0.0, ceiling=0.9),
            "learning_rate": ratios(7.5e-5, 4.8e-3),
            "batch_size": ratios(64, 1024, whole=True, floor=1),
        },
    ),
    "alpharec": Space(
        "alpharec",
        {
            "width": ratios(32, 256, whole=True, floor=1),
            "hidden_width": ratios(64, 1024, whole=True, floor=1),
            "layers": steps(1, 3, 1, whole=True, floor=0),
            "temperature": ratios(0.05, 0.4),
            "negatives": ratios(256, 4096, whole=True, floor=1),
            "learning_rate": ratios(2.5e-4, 4e-3),
            "batch_size": ratios(64, 1024, whole=True, floor=1),
        },
    ),
    "rsllm": Space(
        "rsllm",
        {
            "alpha": ratios(0.75, 12.0),
            "beta": ratios(0.25, 4.0),
            "temperature": ratios(0.05, 0.4),
            "dropout": steps(0.0, 0.6, 0.1, floor=0.0, ceiling=0.9),
            "length": ENCODER["length"],
            "finetune.learning_rate": ratios(1.25e-4, 2e-3),
        },
    ),
    "cllm4rec": Space(
        "cllm4rec",
        {
            "mutual": ratios(1.0, 1e6, 100.0),
            "prior": ratios(1e-5, 1e-3, 10.0),
            "start": choices("factors", "random"),
            "content_ratio": choices(0.0, 1.0),
            "epochs": choices(0, 8),
            "user_dropping": steps(0.0, 0.8, 0.2, floor=0.0, ceiling=0.9),
            "mask_share": steps(0.1, 0.9, 0.1, floor=0.0, ceiling=0.9),
            "learning_rate": ratios(2.5e-5, 4e-4),
            "finetune.learning_rate": ratios(7.5e-5, 1.2e-3),
            "finetune.batch_size": ratios(16, 1024, whole=True, floor=1),
        },
    ),
}


def stages_of(system: str) -> tuple[str, ...]:
    """The commands that train a system."""
    return tuple(system_config(system).training) or (FIRST_STAGE,)


def settings_of(system: str) -> set[str]:
    """Names of all settings of a system and of its training, as they are searched."""
    config_class = system_config(system)
    own = {each.name for each in fields(config_class)}
    if config_class.training:
        own |= {each.name for each in fields(TrainConfig)}
    later = stages_of(system)[1:]
    return own | {f"{stage}.{name}" for stage in later for name in own}


def typed_settings(typed: Sequence[str], systems: Sequence[str], flag: str) -> dict[str, str]:
    """Settings typed as NAME=VALUE.

    Args:
        typed: the texts.
        systems: that may have them.
        flag: that they are values of, for errors.

    Raises:
        SystemExit: one has another form, or no system has it.
    """
    known = {setting for system in systems for setting in settings_of(system)}
    settings = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            having = " or ".join(dict.fromkeys(systems))
            raise SystemExit(f"error: {flag} {text}: give NAME=VALUE of a setting of {having}")
        settings[name] = value
    return settings
