"""`fit` trains all stages, as the commands do, and says how far it is."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cllm4rec
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load, load_stage, system_class
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call, run_launched
from tests.support.logs import messages
from tests.support.planted import assert_bit_identical
from tests.support.worlds import taste_dataset

QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=2)

# `fit` and the commands, each in the folder of their dataset; rank 0 saves the model of `fit`.
IN_PROCESSES = """
import sys

import torch

from cllm4rec import CLLM4Rec, Dataset, TrainConfig, finetune, pretrain

folder, flags = sys.argv[1], ["--epochs=2", "--learning-rate=0.001", "--patience=5", "--validate-every=1"]
flags += ["--batch-size=64", "--patience-steps=200", "--averaging=0"]  # as `TrainConfig` has them
pretrain.main(["--dataset", f"{folder}/data", "--output", f"{folder}/run", *flags])
finetune.main(["--run", f"{folder}/run", *flags])
model = CLLM4Rec().fit(Dataset.load(f"{folder}/data"), TrainConfig(epochs=2))
if torch.distributed.get_rank() == 0:
    model.save(f"{folder}/model")
torch.distributed.destroy_process_group()
"""


def new_network(name: str) -> NeuralRecommender:
    model = system_class(name)()
    assert isinstance(model, NeuralRecommender)
    return model


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A tiny world, in the folder `data` too."""
    dataset = taste_dataset(2, 20, 16, 8)
    dataset.save(tmp_path / "data")
    return dataset


@pytest.mark.parametrize("name", ["cllm4rec", "rsllm", "sasrec"])
def test_fit_gives_the_weights_of_the_commands_bit_for_bit(
    name: str, dataset: Dataset, tmp_path: Path
) -> None:
    flags = ("--system", name, "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--seed", 3)
    call("pretrain", *flags)
    model = new_network(name)
    if "finetune" in model.stages:
        call("finetune", "--run", tmp_path / "run")
    first = replace(model.config_class.training["pretrain"], seed=3)
    model.fit(dataset, {"pretrain": first})
    trained = load(tmp_path / "run")
    assert_bit_identical(trained._arrays(), model._arrays())
    if isinstance(model, RSLLM):
        assert isinstance(trained, RSLLM)
        assert_bit_identical(trained.sequential._arrays(), model.sequential._arrays())
    users = np.arange(dataset.n_users)
    np.testing.assert_array_equal(trained.score(users, dataset), model.score(users, dataset))


@pytest.mark.slow
def test_fit_gives_the_weights_of_the_commands_under_a_launcher(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(IN_PROCESSES)
    run_launched(2, tmp_path / "script.py", tmp_path)
    assert_bit_identical(load(tmp_path / "run")._arrays(), load(tmp_path / "model")._arrays())


def test_settings_may_be_given_for_all_stages_or_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[str, TrainConfig]] = []
    monkeypatch.setattr(
        NeuralRecommender, "fit_stage", lambda self, data, stage, config, *_: used.append((stage, config))
    )
    model, defaults = new_network("cllm4rec"), system_class("cllm4rec").config_class.training
    model.fit(taste_dataset())
    model.fit(taste_dataset(), QUICK)
    model.fit(taste_dataset(), {"finetune": QUICK})
    model.fit(taste_dataset(), {"pretrain": replace(QUICK, seed=5)})
    finetune = defaults["finetune"]
    pretrained = [defaults["pretrain"], QUICK, defaults["pretrain"], replace(QUICK, seed=5)]
    finetuned = [finetune, QUICK, QUICK, replace(finetune, seed=5)]
    expected = [
        pair
        for first, second in zip(pretrained, finetuned, strict=True)
        for pair in (("pretrain", first), ("finetune", second))
    ]
    assert used == expected


def test_an_unknown_stage_is_refused_before_training() -> None:
    model = new_network("sasrec")
    with pytest.raises(ValueError, match="stage 'finetune' is unknown: sasrec has pretrain"):
        model.fit(taste_dataset(), {"finetune": QUICK})
    assert model.stage is None


def test_what_cannot_be_trained_is_refused_before_the_base_system_is_trained() -> None:
    untitled = replace(taste_dataset(), items=taste_dataset().items.drop("title"))
    model = new_network("rsllm")
    with pytest.raises(ValueError, match="rsllm reads titles, and the items have none"):
        model.fit(untitled, QUICK)
    assert not hasattr(model, "sequential")


def test_each_epoch_is_logged_as_the_commands_log_it(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cllm4rec")
    flags = ("--epochs", 2, "--batch-size", 16, "--warmup-steps", 2)
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", *flags)
    call("finetune", "--run", tmp_path / "run", *flags)

    def lines() -> list[str]:
        """The lines on epochs, without the times."""
        found = [record.getMessage().rsplit(";", 1)[0] for record in caplog.records]
        caplog.clear()
        return [line for line in found if line.startswith(("pretrain epoch ", "finetune epoch "))]

    logged = lines()
    assert [line.split(":")[0] for line in logged] == [
        *(f"pretrain epoch {epoch}" for epoch in range(3)), "finetune epoch 0", "finetune epoch 1",
    ]  # fmt: skip
    settings = {
        stage: replace(
            new_network("cllm4rec").config_class.training[stage], epochs=2, batch_size=16, warmup_steps=2
        )
        for stage in ("pretrain", "finetune")
    }
    new_network("cllm4rec").fit(dataset, settings)
    assert lines() == logged


def test_the_epochs_of_a_base_system_are_logged_with_its_name(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cllm4rec")
    new_network("rsllm").fit_stage(dataset, "pretrain", replace(QUICK, max_minutes=0.0))
    assert messages(caplog)[0].startswith("sasrec pretrain epoch 0: ")
    assert messages(caplog)[-1].startswith("pretrain epoch 0: ")


def test_a_base_system_takes_the_seed_and_the_time_limit(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, used = new_network("rsllm"), []
    fit_stage = NeuralRecommender.fit_stage

    def noted(
        self: NeuralRecommender, data: Dataset, stage: str, config: TrainConfig, **rest: object
    ) -> object:
        used.append((self.name, config.seed, config.max_minutes))
        return fit_stage(self, data, stage, config, **rest)

    monkeypatch.setattr(NeuralRecommender, "fit_stage", noted)
    model.fit_stage(dataset, "pretrain", replace(QUICK, seed=7, max_minutes=0.0))
    assert used == [("rsllm", 7, 0.0), ("sasrec", 7, 0.0)]


def test_finetuning_starts_from_the_best_epoch_of_pretraining(dataset: Dataset, tmp_path: Path) -> None:
    """Weights of a model after `fit` with no epoch of finetuning are those of the stage that a run keeps."""
    flags = ("--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 5, "--batch-size", 16)
    call("pretrain", *flags, "--validate-every", 1, "--learning-rate", 0.02)
    best = [line.best for line in RunFolder(tmp_path / "run").metrics()]
    assert not best[-1], "the last epoch is not the best one"
    training = replace(
        new_network("cllm4rec").config_class.training["pretrain"],
        epochs=5,
        batch_size=16,
        validate_every=1,
        learning_rate=0.02,
    )
    model = cllm4rec.CLLM4Rec(cllm4rec.CLLM4RecConfig(linear="none"))
    model.fit(dataset, {"pretrain": training, "finetune": replace(QUICK, epochs=0)})
    kept = load_stage(RunFolder(tmp_path / "run"), "pretrain")
    assert_bit_identical(kept._arrays(), model._arrays())
