"""Sees to new data that was told of and came to nothing: its event got lost, or its run crashed.

An event is said once, to a server that may be killed before it acts; a flow run may be killed with
the worker that would have noticed. So whoever told of data looks whether it was answered, and tells
again while it was not. A run that ended otherwise than by a crash is an answer, whatever it says.
"""

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mmcore import storage
from mmcore.operate.connection import connect
from mmcore.operate.deployed import Deployed
from mmcore.operate.events import Arrival, notify_data, open_prefect
from mmcore.telemetry.prefect import PrefectApi
from mmcore.telemetry.prefect_records import FlowRun

FLOW = "retrain"
PATIENCE_SECONDS = 30.0
"""After the event and its debounce; twice as long after each further one."""
MAX_TIMES = 6
_STUCK_SECONDS = 180.0
"""A run that was handed out and not started by then lost its worker."""
_CLOCKS_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class Unanswered:
    """Remembers what was told of below a root until it is answered."""

    def __init__(
        self,
        root: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.root = root
        self._patience = timedelta(seconds=patience_seconds)
        self._now = now

    def told(self, arrival: Arrival) -> None:
        """Remember an arrival; the same answer serves what came before it."""
        moment = self._now().isoformat()
        value = {"arrival": arrival.payload(), "at": moment, "told_at": moment, "times": 1}
        storage.write(self._url(arrival.dataset), json.dumps(value, indent=1).encode())

    def look(self, deployed: Sequence[Deployed]) -> list[str]:
        """Tell again of what nobody answered; return the datasets. PrefectError when it cannot."""
        return [one.dataset for one in deployed if one.watched and self._look_at(one)]

    def _look_at(self, deployed: Deployed) -> bool:
        data = storage.read_if_exists(self._url(deployed.dataset))
        if data is None:
            return False
        record = json.loads(data)
        waited = self._now() - datetime.fromisoformat(record["told_at"])
        # within the debounce the server does nothing about another event
        patience = self._patience + timedelta(seconds=deployed.debounce_seconds)
        if waited < patience * 2 ** (record["times"] - 1):
            return False
        with open_prefect(connect(self.root)) as prefect:
            is_answered = self._is_answered(prefect, deployed, record)
        if is_answered is None:
            return False
        said = {"dataset": deployed.dataset, "times": record["times"]}
        if is_answered or record["times"] >= MAX_TIMES:
            if not is_answered:
                _logger.error("data_unanswered: told of in vain; see: mm schedule", extra=said)
            storage.delete(self._url(deployed.dataset))
            return False
        self._tell_again(record)
        _logger.warning("data_told_again", extra=said)
        return True

    def _is_answered(
        self, prefect: PrefectApi, deployed: Deployed, record: dict[str, Any]
    ) -> bool | None:
        """Return whether a run has answered; None while one may yet."""
        deployment = prefect.deployment(FLOW, deployed.name)
        if deployment is None:
            return False
        since = datetime.fromisoformat(record["at"]) - timedelta(seconds=_CLOCKS_SECONDS)
        runs = prefect.flow_runs(deployment_ids=[deployment.id], expected_after=since)
        waiting = [run for run in runs if not run.has_ended and not self._is_stuck(prefect, run)]
        if waiting:
            return None
        return any(run.has_ended and run.state_type != "CRASHED" for run in runs)

    def _is_stuck(self, prefect: PrefectApi, run: FlowRun) -> bool:
        if run.state_type != "PENDING" or run.expected_start is None:
            return False
        if self._now() - run.expected_start < timedelta(seconds=_STUCK_SECONDS):
            return False
        prefect.set_state(run.id, "CRASHED", name="Died", message="its worker is gone")
        return True

    def _tell_again(self, record: dict[str, Any]) -> None:
        # another id: an event that the server knows already would not start anything
        event_id = str(uuid.uuid4())
        notify_data(connect(self.root), **record["arrival"], event_id=event_id)
        told_at = self._now().isoformat()
        value = {**record, "told_at": told_at, "times": record["times"] + 1}
        dataset = record["arrival"]["dataset"]
        storage.write(self._url(dataset), json.dumps(value, indent=1).encode())

    def _url(self, dataset: str) -> str:
        return storage.join(self.root, "state", "watch", f"told-{dataset}.json")
