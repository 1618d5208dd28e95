"""What pages know of the Prefect server, without waiting for it: asked in the background."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmcore.dashboard.refreshed import Refreshed
from mmcore.telemetry.prefect import FlowRun, PrefectApi

Answer = TypeVar("Answer")
_MAX_AGE_SECONDS = 5.0
_NUM_UPCOMING = 8


@dataclass(frozen=True)
class Upcoming:
    """A flow run that is to come."""

    title: str
    """`retrain stamps`: Prefect's own names of runs say nothing before they begin."""
    run: FlowRun


class PrefectView:
    """The server of Prefect, if there is one; one call at a time."""

    def __init__(self, prefect: PrefectApi | None) -> None:
        self._prefect = prefect
        self._lock = threading.Lock()
        self.upcoming: Refreshed[Sequence[Upcoming]] = Refreshed(
            lambda: self.call(_upcoming), _MAX_AGE_SECONDS
        )

    @property
    def is_known(self) -> bool:
        """Return whether there is a server to ask at all."""
        return self._prefect is not None

    def call(self, ask: Callable[[PrefectApi], Answer]) -> Answer:
        """Ask the server now, and wait for it; PrefectError when it does not do its part."""
        assert self._prefect is not None, "the caller looked at is_known"
        with self._lock:
            return ask(self._prefect)


def _upcoming(prefect: PrefectApi) -> Sequence[Upcoming]:
    flows = prefect.flow_names()
    titles = {
        one.id: f"{flows.get(one.flow_id, '')} {one.name}".strip() for one in prefect.deployments()
    }
    runs = prefect.upcoming(_NUM_UPCOMING)
    return [Upcoming(titles.get(run.deployment_id or "", run.name), run) for run in runs]
