"""A bounded choice of examples that no order, no division and no number of workers changes."""

import heapq
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Generic, TypeVar

ExampleT = TypeVar("ExampleT")


class Reservoir(Generic[ExampleT]):
    """Of each group the examples whose keys have the smallest hashes.

    Everything that is offered has the same chance.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        # the largest hash first, so that it is the one to give way
        self._held: dict[str, list[tuple[int, str, ExampleT]]] = {}

    def offer(self, group: str, key: str, make: Callable[[], ExampleT]) -> None:
        """Take an example in if it is among the first; only then is it made."""
        rank = -self._rank(key)
        held = self._held.setdefault(group, [])
        if any(known == key for _, known, _ in held):
            return
        if len(held) < self.size:
            heapq.heappush(held, (rank, key, make()))
        elif held and (rank, key) > held[0][:2]:
            heapq.heapreplace(held, (rank, key, make()))

    @property
    def groups(self) -> list[str]:
        """The groups that have an example, sorted."""
        return sorted(self._held)

    def of(self, group: str) -> list[ExampleT]:
        """Return the examples of a group, the smallest hash first."""
        held = self._held.get(group, [])
        return [example for _, _, example in sorted(held, key=lambda one: (-one[0], one[1]))]

    def __iter__(self) -> Iterator[ExampleT]:
        return (example for group in self.groups for example in self.of(group))

    def _rank(self, key: str) -> int:
        digest = blake2b(f"{self.seed}-{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")
