"""What a process keeps of the memory that it has freed: as little as can be.

An allocator keeps what was freed for the next who asks, so that a process is as large as its
largest moment in each thread. Of a driver or a worker that goes through a corpus a slice at a time
that would be most of what grows with the corpus.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 256 * 1024
_TOP_BYTES = 128 * 1024
_NUM_ARENAS = 2


def give_back_at_once() -> None:
    """Let what is large go back to the system when it is freed; for a process that waits for
    others. One that computes would ask for it again at once.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # of glibc; another libc has its own ways
            libc.mallopt(_ARENA_MAX, _NUM_ARENAS)
            libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
            libc.mallopt(_TRIM_THRESHOLD, _TOP_BYTES)


def give_back() -> None:
    """Give back to the system what is free now."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
