"""Settings of the C library's memory allocator. Imports no library that trains."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory to the system; other C libraries stay as they are.

    A training step frees and allocates the same blocks. Returning them in between costs up to half of the
    time. The setting holds for the whole process.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_THRESHOLD)


def return_freed_memory() -> None:
    """Return the freed memory that glibc keeps to the system, blocks between others included."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
