"""Whether an error means that memory ran out: then nothing is damaged."""

import errno
import re

NO_MEMORY = "there is not enough memory to read it: free some, or use a machine with more"
WORDS = re.compile(  # of libraries that have no kind of error for it
    r"not enough memory|can(no|')t allocate memory|out of memory|bad_alloc|unable to allocate|allocation failed"
    r"|memory allocation|os error 12\b|size calculation overflowed",
    re.IGNORECASE,
)
NUMBER = f"(os error {int(errno.ENOMEM)})"  # in an OSError of a library in Rust, which has no errno


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or an error that led to it, means that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        if _means_it(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _means_it(error: BaseException) -> bool:
    if isinstance(error, OSError):  # its words may hold a path
        return error.errno == errno.ENOMEM or (error.errno is None and NUMBER in str(error))
    if isinstance(error, ValueError):  # it may quote a user's text
        return False
    return isinstance(error, MemoryError) or WORDS.search(str(error)) is not None
