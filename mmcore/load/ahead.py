"""Batches asked for before they are needed: of the next steps, then of the next epoch."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mmcore.load.cache import Group
from mmcore.load.reader import Arrays, Maker
from mmcore.load.reading import Wanted

MAX_TOLD = 256
"""Groups that are told once. A reader remembers many more of them."""


class Spot(NamedTuple):
    """Where in which stream a batch stands."""

    split: str
    seed: int
    global_batch_size: int
    rank: int
    num_ranks: int
    epoch: int
    step: int


class Plan(Protocol):
    """What stands at each spot."""

    def wanted(self, spot: Spot) -> tuple[Sequence[Wanted], Sequence[Group]]:
        """Return the samples of a batch, and what they are fetched with."""
        ...

    def after(self, spot: Spot, num_steps: int) -> Spot:
        """Return a spot that comes later in the stream, in this epoch or in one after it."""
        ...


class Ahead:
    """Keeps a maker of batches busy."""

    def __init__(self, maker: Maker, plan: Plan, *, num_fetched_ahead: int) -> None:
        self.maker = maker
        self._plan = plan
        self._num_fetched_ahead = num_fetched_ahead
        self._due: deque[Spot] = deque()
        self._told: OrderedDict[str, None] = OrderedDict()

    def take(self, spot: Spot) -> Arrays:
        """Return the batch at a spot, and ask for those after it."""
        if self._due and self._due[0] != spot:
            self.maker.drop()
            self._due.clear()
        if not self._due:
            self._ask(spot)
        while self.maker.has_room:
            self._ask(self._plan.after(self._due[-1], 1))
        self._due.popleft()
        return self.maker.take()

    def _ask(self, spot: Spot) -> None:
        wanted, groups = self._plan.wanted(spot)
        self._tell(groups)
        self._due.append(spot)
        self.maker.ask(wanted, seed=spot.seed)
        if groups and self._num_fetched_ahead:
            later = self._plan.after(spot, self._num_fetched_ahead)
            self._tell(self._plan.wanted(later)[1])

    def _tell(self, groups: Sequence[Group]) -> None:
        new = [group for group in groups if group.name not in self._told]
        self.maker.learn(new)
        self._told.update((group.name, None) for group in new)
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
