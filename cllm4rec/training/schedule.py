"""The schedule of a stage: learning rate, number of epochs, and which epochs are validated."""


def learning_rate_factor(step: int, warmup_steps: int, n_steps: int | None = None) -> float:
    """Factor of the peak learning rate in a step: 1 / warmup_steps in step 0, then a linear rise to 1.

    Args:
        step: steps before this one, over all epochs and objectives.
        warmup_steps: length of the rise; 0 for none.
        n_steps: of all epochs, if the rate falls linearly after the rise. It would be 0 in the step after
            the last.
    """
    rise = min(1.0, (step + 1) / max(1, warmup_steps))
    if n_steps is None:
        return rise
    return min(rise, (n_steps - step) / max(1, n_steps - warmup_steps))


def total_epochs(epochs: int, warmup: int) -> int:
    """Most epochs of a stage, warm-up included. A stage of 0 epochs has no warm-up either."""
    return warmup + epochs if epochs else 0


def is_validated(epoch: int, epochs: int, validate_every: int) -> bool:
    """Whether an epoch is validated: the first, each `validate_every`-th after it, and the last.

    Args:
        epoch: counted from the end of the warm-up; negative within it.
        epochs: most epochs after the warm-up.
        validate_every: epochs between two validations.
    """
    return epoch >= 0 and (epoch % validate_every == 0 or epoch == epochs - 1)
