"""Commands on RSLLM and on its sequential recommender."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec import evaluate, finetune, pretrain, recommend
from cllm4rec.commands.stage_settings import with_absolute_paths
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import save_backbone
from tests.support.rsllm import small_dataset
from tests.support.worlds import taste_dataset


def pretrain_on(data: Path, run: Path, *flags: str, system: str = "rsllm") -> None:
    pretrain.main(["--system", system, "--dataset", str(data), "--output", str(run), *flags])


def test_pretraining_trains_the_sequential_recommender_into_a_separate_run(trained_folder: Path) -> None:
    inner = json.loads((trained_folder / "run" / "sasrec" / "run.json").read_text())
    assert inner["system"] == "sasrec"
    assert inner["stages"]["pretrain"]["training"]["seed"] == 3
    sequential = load(trained_folder / "run" / "sasrec")
    model = load(trained_folder / "run")
    assert isinstance(sequential, SASRec)
    assert isinstance(model, RSLLM)
    np.testing.assert_array_equal(model.sequential.net.items.detach(), sequential.net.items.detach())
    assert sequential.config.item_text == "auto"
    assert sequential.net.item_text is not None  # it reads titles


def test_a_sequential_recommender_with_other_settings_is_refused(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version, which then failed, left it in the folder. A run that is resumed keeps it."""
    data, run = trained_folder / "data", tmp_path / "run"
    config, training = RSLLMConfig(title_words=4), RSLLMConfig.training["pretrain"]
    under_way = {"pretrain": StageSettings(asdict(config), asdict(training))}
    dataset = Dataset.load(data)
    RunFolder.create(run, system="rsllm", dataset=dataset, dataset_path=str(data), under_way=under_way)
    pretrain_on(data, run / "sasrec", "--epochs", "1", system="sasrec")
    flags = ["--title-words", "4"]
    with pytest.raises(ValueError, match="sasrec was trained with other settings: remove it"):
        pretrain_on(data, run, *flags)
    pretrain.main(["--output", str(run), "--resume"])
    assert RunFolder.open(run).ended("pretrain")


def test_a_pretrained_backbone_is_finetuned_for_one_epoch(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "backbone")
    small_dataset().save(tmp_path / "data")
    pretrain_on(tmp_path / "data", tmp_path / "sasrec", "--epochs", "1", system="sasrec")
    flags = ["--sequential", str(tmp_path / "sasrec"), "--backbone", str(backbone), "--tune", "frozen"]
    pretrain_on(tmp_path / "data", tmp_path / "run", *flags)
    finetune.main(["--run", str(tmp_path / "run")])
    training = RunFolder.open(tmp_path / "run").description.stages["finetune"].training
    assert (training["epochs"], training["batch_size"], training["schedule"]) == (1, 4, "linear")
    model = load(tmp_path / "run")
    assert model.config.default_training["finetune"] == TrainConfig(**training)
    built_in = RSLLMConfig().default_training["finetune"]
    assert (built_in.epochs, built_in.batch_size, built_in.schedule) == (20, 16, "constant")


def test_a_run_is_evaluated_and_serves_lists(
    trained_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for by in ("scores", "language", "likelihood", "generation"):
        flags = ["--candidates", "10", "--draws", "2", "--by", by, "--json", str(tmp_path / f"{by}.json")]
        evaluate.main(["--run", str(trained_folder / "run"), *flags])
        metrics = json.loads((tmp_path / f"{by}.json").read_text())["metrics"]
        assert set(metrics) == {"hit_ratio@1", "valid_ratio", "standard_error"}
        if by != "generation":
            assert metrics["valid_ratio"] == 1.0
    capsys.readouterr()
    evaluate.main(["--run", str(trained_folder / "run")])
    printed = capsys.readouterr().out
    assert "rsllm after finetune, on test" in printed
    assert "input: training and validation events" in printed
    assert "alone" not in printed
    evaluate.main(["--run", str(trained_folder / "run"), "--by", "language"])
    assert "; scores of the language model alone" in " ".join(capsys.readouterr().out.split())
    for by in ("language", "likelihood"):
        among = ["--candidates", "10"] if by == "likelihood" else []
        sasrec = trained_folder / "run" / "sasrec"
        flags = [*among, "--by", by, "--against", str(sasrec), "--json", str(tmp_path / "against.json")]
        evaluate.main(["--run", str(trained_folder / "run"), *flags])
        result = json.loads((tmp_path / "against.json").read_text())
        assert result["protocol"] != result["against"]["protocol"]
        printed = " ".join(capsys.readouterr().out.split())
        assert f"minus sasrec after pretrain of {sasrec} by scores, paired by" in printed
    flags = ["--all", "--k", "3", "--output", str(tmp_path / "lists.csv")]
    recommend.main(["--run", str(trained_folder / "run"), *flags])
    assert len(pl.read_csv(tmp_path / "lists.csv")) == 3 * small_dataset().n_users


def test_a_run_of_a_sequential_recommender_is_used(trained_folder: Path, tmp_path: Path) -> None:
    sequential = trained_folder / "run" / "sasrec"
    flags = ["--sequential", str(sequential), "--epochs", "1"]
    pretrain_on(trained_folder / "data", tmp_path / "run", *flags)
    assert not (tmp_path / "run" / "sasrec").exists()
    model = load(tmp_path / "run")
    assert isinstance(model, RSLLM)
    assert model.config.sequential == str(sequential.resolve())


def test_a_folder_named_as_a_value_of_a_setting_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sasrec", "tiny", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    names = RSLLMConfig(sequential="sasrec", backbone="tiny")
    assert with_absolute_paths(names) == names
    assert with_absolute_paths(RSLLMConfig(backbone="gpt2")) == RSLLMConfig(backbone="gpt2")
    folders = with_absolute_paths(RSLLMConfig(sequential="other", backbone="other"))
    assert (folders.sequential, folders.backbone) == (str(tmp_path / "other"), str(tmp_path / "other"))


def test_a_run_that_is_no_sequential_recommender_or_of_another_split_is_refused(
    trained_folder: Path, tmp_path: Path
) -> None:
    data, run = trained_folder / "data", tmp_path / "run"
    pretrain_on(data, tmp_path / "popular", system="popularity")
    with pytest.raises(ValueError, match="is a run of popularity: it may be sasrec or gru4rec or bsarec"):
        pretrain_on(data, run, "--sequential", str(tmp_path / "popular"))
    with pytest.raises(ValueError, match="no run.json"):
        pretrain_on(data, run, "--sequential", str(tmp_path / "nowhere"))
    taste_dataset(split="random").save(tmp_path / "other")
    pretrain_on(tmp_path / "other", tmp_path / "sasrec", "--epochs", "1", system="sasrec")
    with pytest.raises(ValueError, match="another split"):
        pretrain_on(data, run, "--sequential", str(tmp_path / "sasrec"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--candidates", "60"], "titles are not in the longest history"),
        (["--candidates", "1"], "at least 2"),
        (["--backbone", "tinny"], "backbone 'tinny' cannot be loaded"),
        (["--sequential", "nowhere"], "no run.json"),
    ],
)
def test_impossible_training_is_refused_before_a_run_folder_is_made(
    flags: list[str], message: str, trained_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain_on(trained_folder / "data", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_titles_is_refused_before_the_sequential_recommender_is_trained(
    tmp_path: Path,
) -> None:
    events = taste_world(1, n_users=20, n_items=30, n_events=8).events
    Dataset.from_frame(events, split="leave-last-out").save(tmp_path / "data")
    with pytest.raises(ValueError, match="the items have none"):
        pretrain_on(tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_refused_finetuning_leaves_the_earlier_one_unchanged(trained_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_folder / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = (folder.description, sorted(file.name for file in folder.path.iterdir()))
    with pytest.raises(ValueError, match="titles are not in the longest history"):
        finetune.main(["--run", str(folder.path), "--candidates", "60"])
    assert (folder.description, sorted(file.name for file in folder.path.iterdir())) == before
    assert folder.ended("finetune")


@pytest.mark.slow
def test_two_processes_give_what_one_gives_with_two_micro_batches(
    trained_folder: Path, tmp_path: Path
) -> None:
    """Bit for bit: the sampled negatives do not depend on the number of processes."""
    settings = "--title-words 4 --dropout 0 --negatives 20 --hard 3".split()
    training = "--epochs 1 --batch-size 4".split()  # a share of two examples is one pass
    data, sequential = str(trained_folder / "data"), str(trained_folder / "run" / "sasrec")
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    single = [sys.executable, "-m"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for name, launch, further in (("two", two, []), ("single", single, ["--accumulation", "2"])):
        run, dashes = str(tmp_path / name), ["--"] if launch is two else []
        first = [
            "--system",
            "rsllm",
            "--dataset",
            data,
            "--sequential",
            sequential,
            *settings,
            "--output",
            run,
        ]
        commands = (("pretrain", first), ("finetune", ["--run", run]))
        for command, flags in commands:
            typed = [*launch, f"cllm4rec.{command}", *dashes, *flags, *training, *further]
            done = subprocess.run(
                typed, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[3]
            )
            assert done.returncode == 0, done.stderr
    for stage in ("pretrain", "finetune"):
        files = [tmp_path / name / stage / "model.safetensors" for name in ("single", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
