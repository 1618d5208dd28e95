"""What a process keeps of the memory that it has freed: as little as can be.

An allocator keeps what was freed for the next who asks, so that a process is as large as its
largest moment in each thread. Of a driver or a worker that goes through a corpus a slice at a time
that would be most of what grows with the corpus.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_NUM_ARENAS = 2
_KEPT_BY_WHO_WAITS = 64 * 1024
_KEPT_BY_WHO_COMPUTES = 32 * 2**20  # the most that malloc takes


def give_back_at_once() -> None:
    """Let what is large go back to the system when it is freed: for a driver that waits for its
    workers.
    """
    _keep(_KEPT_BY_WHO_WAITS)


def keep_for_more() -> None:
    """Keep what is freed: for a driver that computes by itself, and would ask for it again."""
    _keep(_KEPT_BY_WHO_COMPUTES)


def _keep(num_bytes: int) -> None:
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):  # another libc has its own ways
        libc.mallopt(_ARENA_MAX, _NUM_ARENAS)
        libc.mallopt(_MMAP_THRESHOLD, num_bytes)
        libc.mallopt(_TRIM_THRESHOLD, 2 * num_bytes)


def give_back() -> None:
    """Give back to the system what is free now."""
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
