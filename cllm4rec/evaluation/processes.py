"""Users or events that several processes share."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # it imports torch
    from accelerate import Accelerator

USERS_AT_ONCE = 512  # users of a batch of lists

Result = TypeVar("Result")


def share(n: int, batch_size: int, accelerator: "Accelerator | None") -> slice:
    """The rows of n that this process takes: whole batches, so that batches are those of one process."""
    if accelerator is None:
        return slice(0, n)
    n_batches = -(-n // batch_size)
    process, n_processes = accelerator.process_index, accelerator.num_processes
    first, end = (n_batches * (process + i) // n_processes for i in (0, 1))
    return slice(first * batch_size, end * batch_size)


def gathered(result: Result, accelerator: "Accelerator | None") -> list[Result]:
    """The results of all processes, in the order of their shares."""
    if accelerator is None:
        return [result]
    from accelerate.utils import gather_object

    results: list[Result] = gather_object([result])
    return results
