"""Starts ranks again when some died or froze: as many as before, or fewer where that is allowed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcore.core.executor import Executor
from mmcore.errors import RanksLost, StepError
from mmcore.sample import Json

_MAX_IN_VAIN = 3
_NUM_BEFORE_FEWER = 2
"""So often ranks are lost without a step of progress before fewer are tried."""


@dataclass
class Restarts:
    """How often ranks were started again, and whether that is getting anywhere."""

    counts: Sequence[int]
    """How many ranks there may be, the wanted number first."""
    say: Callable[[str], None]
    num_restarts: int = 0
    _num_in_vain: int = 0
    _reached: int = -1
    _lost: set[int] = field(default_factory=set)
    """Counts of ranks that were lost again and again."""

    def run(
        self,
        executor: Executor,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        on_report: Callable[[Mapping[str, Json]], None],
        step_reached: Callable[[], int],
    ) -> None:
        """Run a gang to its end; RanksLost when it was lost so often without getting further.

        `step_reached` tells the step of the newest checkpoint.
        """
        while True:
            num_ranks = self._num_ranks(executor)
            try:
                executor.gang(function, config, num_ranks=num_ranks, on_report=on_report)
            except RanksLost as error:
                self._note(num_ranks, step_reached(), error)
            else:
                return

    def _num_ranks(self, executor: Executor) -> int:
        now = executor.num_ranks_now(self.counts[0])
        possible = [count for count in self.counts if count <= now]
        if not possible:
            raise StepError(
                f"there is room for {now} ranks now and training needs {self.counts[-1]}. Wait "
                "for the machines to come back and run again, or set placement.num_ranks lower."
            )
        return next((count for count in possible if count not in self._lost), possible[-1])

    def _note(self, num_ranks: int, step: int, error: RanksLost) -> None:
        is_further, self._reached = step > self._reached, max(step, self._reached)
        self._num_in_vain = 1 if is_further else self._num_in_vain + 1
        if self._num_in_vain > _MAX_IN_VAIN:
            raise RanksLost(
                f"the ranks were started {self._num_in_vain} times from step {step} and lost each "
                f"time; the last time: {error}"
            ) from error
        if self._num_in_vain >= _NUM_BEFORE_FEWER:
            self._lost.add(num_ranks)
        self.num_restarts += 1
        self.say(f"restart {self.num_restarts} from step {max(step, 0)}: {error}")
