"""What is searched: settings that exist, with values that their rules allow."""

from dataclasses import fields
from itertools import product
from typing import Any, get_type_hints

import pytest

from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.training.config import TrainConfig
from experiments.tuning.domains import Domain, Numbers
from experiments.tuning.search import Search
from experiments.tuning.spaces import SPACES, settings_of, stages_of

SEARCHED = [
    (name, setting, domain)
    for name, space in SPACES.items()
    for setting, domain in {**space.settings, **space.in_time}.items()
]


def config_class_of(system: str, setting: str) -> type[Any]:
    """The settings class that has a setting."""
    config_class = system_config(system)
    own = setting.rpartition(".")[2] in {each.name for each in fields(config_class)}
    return config_class if own else TrainConfig


def test_every_system_can_be_tuned() -> None:
    assert {space.system for space in SPACES.values()} == set(SYSTEMS)


@pytest.mark.parametrize("name", SPACES)
def test_settings_exist(name: str) -> None:
    space = SPACES[name]
    assert {*space.settings, *space.in_time, *space.fixed} <= settings_of(space.system)
    assert not set(space.fixed) & {*space.settings, *space.in_time}


def test_names_of_settings_are_those_of_the_stages() -> None:
    assert stages_of("ease") == ("pretrain",) and stages_of("cllm4rec") == ("pretrain", "finetune")
    assert settings_of("popularity") == set() and {"decay", "regularization"} <= settings_of("ease")
    assert {"mutual", "epochs", "finetune.epochs"} <= settings_of("cllm4rec")
    assert {"width", "learning_rate"} <= settings_of("gru4rec")
    assert not any("." in setting for setting in settings_of("gru4rec")), "it has one stage"


@pytest.mark.parametrize(("name", "setting", "domain"), SEARCHED)
def test_values_are_allowed_and_of_the_type_of_the_setting(name: str, setting: str, domain: Domain) -> None:
    system, plain = SPACES[name].system, setting.rpartition(".")[2]
    config_class = config_class_of(system, setting)
    kind = get_type_hints(config_class)[plain]
    values = list(domain.grid)
    if isinstance(domain, Numbers):
        assert values[0] == domain.low and values[-1] == domain.high
        assert len(values) == len(set(values)) > 1
        assert domain.whole == (kind in (int, int | None))
        values += [bound for bound in (domain.floor, domain.ceiling) if bound is not None]
    own = {each.name for each in fields(config_class)}
    fixed = {name: value for name, value in SPACES[name].fixed.items() if name in own}
    for value in values:
        config_class(**{**fixed, plain: value})
    assert all(isinstance(value, kind) for value in domain.grid)


@pytest.mark.parametrize(
    ("name", "setting", "domain"), [each for each in SEARCHED if isinstance(each[2], Numbers)]
)
def test_the_default_of_a_setting_is_among_its_values(name: str, setting: str, domain: Numbers) -> None:
    system, (stage, _, plain) = SPACES[name].system, setting.rpartition(".")
    config_class = system_config(system)
    own = config_class_of(system, setting) is config_class
    default = getattr(config_class() if own else config_class.training[stage or stages_of(system)[0]], plain)
    if isinstance(default, (int, float)):  # else it is chosen by the system, or None
        assert domain.reaching(default) == domain


@pytest.mark.parametrize(("name", "setting", "domain"), SEARCHED)
def test_what_pretraining_fixes_is_not_searched_later(name: str, setting: str, domain: Domain) -> None:
    stage, _, plain = setting.rpartition(".")
    assert not stage or plain not in system_config(SPACES[name].system).fixed_after_pretraining


def test_every_width_of_sasrec_is_divided_by_every_number_of_heads() -> None:
    settings = SPACES["sasrec"].settings
    for width, heads in product(settings["width"].grid, settings["heads"].grid):
        system_config("sasrec")(width=width, heads=heads)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_can_be_searched_as_a_grid(name: str) -> None:
    Search(SPACES[name].searched(True, {}), "grid")


def test_the_order_of_events_is_searched_in_splits_in_time_only() -> None:
    ease = SPACES["ease"]
    assert list(ease.searched(False, {})) == ["regularization"]
    assert list(ease.searched(True, {})) == ["regularization", "decay"]
    assert list(ease.searched(True, {"regularization": "200"})) == ["decay"]
