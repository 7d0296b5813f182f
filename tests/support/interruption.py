"""Training that is asked to stop at a chosen step."""


class StopAfter:
    """A request to stop that is true from the n-th question on."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0
