"""Training resumes only with the texts and vectors with which it began."""

from pathlib import Path

import numpy as np
import pytest

from cllm4rec.training import loop
from cllm4rec.training.resume import Stopped
from tests.support.commands import call
from tests.support.reviewed_books import reviewed_books
from tests.support.tables import refused


def test_other_vectors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, file = reviewed_books(), tmp_path / "vectors.npy"
    dataset.save(tmp_path / "data")
    vectors = np.random.default_rng(0).normal(size=(dataset.n_items, 5))
    np.save(file, vectors)
    flags = ["--system", "bag", "--width", 16, "--item-vectors", file, "--epochs", 2]
    run = ["pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", *flags]
    restore = loop.TrainingRun.restore_best_weights

    def stop_after_an_epoch(training: loop.TrainingRun) -> None:
        if training.progress.epoch < 2:
            restore(training)
        raise Stopped

    monkeypatch.setattr(loop.TrainingRun, "restore_best_weights", stop_after_an_epoch)
    with pytest.raises((Stopped, SystemExit)):
        call(*run)
    monkeypatch.undo()
    resume = ["pretrain", "--output", tmp_path / "run", "--resume"]
    np.save(file, vectors * np.arange(1, 6))
    assert "what texts say is not as it was" in refused(lambda: call(*resume))
    np.save(file, vectors)
    call(*resume)
    call("evaluate", "--run", tmp_path / "run")
