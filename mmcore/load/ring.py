"""Batches from one process to another without a copy: slots in memory that both have mapped.

The memory has no name: it passes as a file descriptor, clashes with nothing, and is gone with the
last process that has it.
"""

import ctypes
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
_ALIGNMENT = 64


class Placed(NamedTuple):
    """Where an array lies in its slot."""

    name: str
    dtype: str
    shape: Sequence[int]
    offset: int


class Arena:
    """Where the arrays of one batch are made: in a slot, or, without one, wherever."""

    def __init__(self, slot: memoryview | None = None) -> None:
        self._slot = slot
        self._used = 0
        self.arrays: dict[str, Array] = {}
        self.placed: list[Placed] = []

    def empty(self, name: str, shape: Sequence[int], dtype: str) -> Array:
        """Return a new array, its contents whatever was there."""
        if self._slot is None:
            made: Array = np.empty(shape, dtype)
        else:
            count = math.prod(shape)
            num_bytes = count * np.dtype(dtype).itemsize
            assert self._used + num_bytes <= len(self._slot), f"no room for {name} in the slot"
            made = np.frombuffer(self._slot, dtype, count, self._used).reshape(shape)
            self.placed.append(Placed(name, dtype, tuple(shape), self._used))
            self._used += room(num_bytes)
        self.arrays[name] = made
        return made

    def zeros(self, name: str, shape: Sequence[int], dtype: str) -> Array:
        """Return a new array of zeros."""
        made = self.empty(name, shape, dtype)
        made[...] = 0
        return made

    def put(self, name: str, values: Array) -> None:
        """Copy an array."""
        self.empty(name, values.shape, values.dtype.str)[...] = values


def room(num_bytes: int) -> int:
    """Return what an array of a length takes in a slot."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


class Ring:
    """Slots of equal size; whoever takes arrays from one holds it as long as one of them."""

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        self.num_slots = num_slots
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.handle = os.memfd_create("mmcore-batches", os.MFD_CLOEXEC)
        # a page takes memory once something is written to it
        os.ftruncate(self.handle, num_slots * self.slot_bytes)
        self._memory = mmap.mmap(self.handle, num_slots * self.slot_bytes)
        self._free = deque(range(num_slots))
        self._num_held = 0

    @property
    def num_free(self) -> int:
        """How many slots can be filled."""
        return len(self._free)

    def take(self) -> int:
        """Return a free slot."""
        return self._free.popleft()

    def give_back(self, slot: int) -> None:
        """Say that a slot can be filled again."""
        self._free.append(slot)

    def arrays(self, slot: int, placed: Sequence[Placed]) -> Mapping[str, Array]:
        """Return the arrays of a slot, which becomes free when nobody has one of them any more.

        Where most slots are held already, as by someone who collects batches, they are copies.
        """
        start = slot * self.slot_bytes
        memory = (ctypes.c_ubyte * self.slot_bytes).from_buffer(self._memory, start)
        view = memoryview(memory)
        found = {
            one.name: np.frombuffer(view, one.dtype, math.prod(one.shape), one.offset).reshape(
                one.shape
            )
            for one in placed
        }
        if self._num_held >= self.num_slots - 2:
            copies = {name: array.copy() for name, array in found.items()}
            self.give_back(slot)
            return copies
        self._num_held += 1
        weakref.finalize(memory, self._let_go, slot).atexit = False
        return found

    def close(self) -> None:
        """Let go of the memory, as far as nobody has arrays in it."""
        os.close(self.handle)

    def _let_go(self, slot: int) -> None:
        self._num_held -= 1
        self.give_back(slot)


def slot_of(memory: mmap.mmap, slot: int, slot_bytes: int) -> memoryview:
    """Return one slot of a ring that another process has made."""
    return memoryview(memory)[slot * slot_bytes : (slot + 1) * slot_bytes]
