"""Errors that mean that memory ran out. Nothing is damaged then."""

import errno
import re

NO_MEMORY = "there is not enough memory to read it: free some, or use a machine with more"
# messages of libraries that have no error class for it
MEMORY_MESSAGES = re.compile(
    r"not enough memory|can(no|')t allocate memory|out of memory|bad_alloc|unable to allocate"
    r"|allocation failed|memory allocation|os error 12\b|size calculation overflowed",
    re.IGNORECASE,
)
RUST_ENOMEM = f"(os error {int(errno.ENOMEM)})"  # in the message of an OSError from Rust, which has no errno


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_memory_error(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_memory_error(error: BaseException) -> bool:
    if isinstance(error, OSError):  # its message may hold a path
        return error.errno == errno.ENOMEM or (error.errno is None and RUST_ENOMEM in str(error))
    if isinstance(error, ValueError):  # its message may quote a user's text
        return False
    return isinstance(error, MemoryError) or MEMORY_MESSAGES.search(str(error)) is not None
