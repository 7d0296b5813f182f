"""Settings of memory that libraries keep: of the C library's allocator, and of oneDNN's kernels.

Imports no library that trains.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes
# Environment variables of oneDNN and of PyTorch's interface to it: kernels that each keeps, 1,024 by default.
KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
KERNELS = 64


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


def limit_kernel_caches() -> None:
    """Tell oneDNN to keep few kernels, before its first product. Variables that are set stay as they are.

    A matrix product in bfloat16 on a CPU has a kernel for each shape, which takes 0.6 MiB. Batches of texts
    have ever new shapes. A few layers have few shapes at a time, so that a step compiles nothing twice.
    """
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KERNELS))
