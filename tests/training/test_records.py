"""The line that is logged about an epoch."""

import pytest

from cllm4rec.training.records import EpochRecord


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"unified": 15.0, "unified C_user": 4.0}, "unified 15"),
        ({"next item": 3.5}, "next item 3.5"),
        ({}, "nothing was trained"),
    ],
)
def test_the_line_of_an_epoch_has_the_loss_of_each_objective(losses: dict[str, float], expected: str) -> None:
    record = EpochRecord(2, losses, {}, {}, 0.25, 1.0, 1000.0, True)
    quality = "validation ndcg@100 0.2500 (best so far)"
    assert str(record) == f"epoch 2: {expected}; {quality}; 1,000 tokens/s, 1.0 s"
