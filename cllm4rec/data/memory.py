"""Whether an error means that memory ran out: then nothing is damaged."""

import errno
import re

NO_MEMORY = "there is not enough memory to read it: free some, or use a machine with more"
WORDS = re.compile(  # of libraries that have no kind of error for it
    r"not enough memory|can(no|')t allocate memory|out of memory|bad_alloc|unable to allocate|allocation failed"
    r"|memory allocation|os error 12|size calculation overflowed",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or an error that led to it, means that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        if not isinstance(cause, ValueError) and WORDS.search(str(cause)):  # a ValueError may quote a user's text
            return True
        cause = cause.__cause__ or cause.__context__
    return False
