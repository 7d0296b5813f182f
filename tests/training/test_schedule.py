"""The schedule of a stage, by hand."""

import pytest

from cllm4rec.training.schedule import is_validated, learning_rate_factor, total_epochs


def test_the_learning_rate_rises_to_its_peak_and_stays() -> None:
    assert [learning_rate_factor(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate_factor(0, 0) == learning_rate_factor(0, 1) == 1.0


def test_a_linear_schedule_falls_to_zero_in_the_step_after_the_last() -> None:
    factors = [learning_rate_factor(step, 2, n_steps=6) for step in range(7)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert [learning_rate_factor(step, 0, n_steps=4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    rises = [learning_rate_factor(step, 4) for step in range(3)]
    assert [learning_rate_factor(step, 4, n_steps=3) for step in range(3)] == rises, "all is warm-up"


def test_the_warm_up_adds_epochs_to_a_stage_that_has_any() -> None:
    assert (total_epochs(3, 2), total_epochs(3, 0), total_epochs(0, 2)) == (5, 3, 0)


@pytest.mark.parametrize(
    ("epochs", "validate_every", "expected"),
    [(9, 3, [0, 3, 6, 8]), (7, 3, [0, 3, 6]), (2, 5, [0, 1]), (1, 1, [0]), (0, 1, [])],
)
def test_the_first_and_the_last_epoch_are_validated(
    epochs: int, validate_every: int, expected: list[int]
) -> None:
    validated = [epoch for epoch in range(-2, epochs) if is_validated(epoch, epochs, validate_every)]
    assert validated == expected
