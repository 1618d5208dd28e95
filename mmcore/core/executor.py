"""The seam between what is done and where: one protocol, two implementations in `executors`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mmcore.core.cancel import StopSwitch
from mmcore.sample import Json

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one task occupies while it is done."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


ONE_CPU = Resources()


class Executor(Protocol):
    """Runs functions elsewhere. It never decides what a result is, only where it is made."""

    @property
    def name(self) -> str:
        """`local` or `ray`."""
        ...

    @property
    def num_workers(self) -> int:
        """How many tasks are done at a time."""
        ...

    @property
    def stop(self) -> StopSwitch:
        """Once it is thrown, `map` and `gang` kill what they have started and raise its error."""
        ...

    def map(
        self,
        function: Callable[[ItemT], ResultT],
        items: Iterable[ItemT],
        *,
        resources: Resources = ONE_CPU,
    ) -> Iterator[tuple[int, ResultT]]:
        """Yield (index, result) as results arrive, with a bounded number under way.

        An exception in a worker is raised here, once, with its traceback. A worker that dies is
        replaced and its item tried again a bounded number of times.
        """
        ...

    def gang(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        num_ranks: int,
        on_report: Callable[[Mapping[str, Json]], None],
    ) -> None:
        """Run `function(config)` on `num_ranks` processes that can reach each other.

        RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set as torch expects them.
        Results are files; the dictionaries that rank 0 hands to `config["report"]` arrive here.
        `config["should_stop"]()` says on a rank whether the run has been told to stop; one that
        asks is given a few seconds to end by itself. RanksLost when a rank died or is frozen;
        none is left then.
        """
        ...

    def num_ranks_now(self, most: int) -> int:
        """Return how many ranks can be placed at this moment, `most` at the most."""
        ...

    def memory_bytes(self) -> int:
        """Return how much memory ranks can have together, on all hosts that they may be on."""
        ...

    def close(self) -> None:
        """Let go of every process and connection, whatever they are doing."""
        ...
