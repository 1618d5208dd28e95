"""Sees to runs whose process died: tells people, and Prefect, which would notice much later."""

import json
import logging
import os
from collections.abc import Sequence

from mmcore import storage
from mmcore.core import runs
from mmcore.errors import MmError
from mmcore.operate.alerts import send_alert
from mmcore.operate.connection import connect
from mmcore.operate.deployed import Deployed
from mmcore.operate.deployments import load_deployment_config
from mmcore.operate.events import open_prefect
from mmcore.telemetry.prefect import PrefectError

LOOK_SECONDS = 5.0
_NUM_LOOKED_AT = 100

_logger = logging.getLogger(__name__)


class Deaths:
    """Finds runs that died, and tells of each once, also after it was started again.

    What it told of is in a file that may be thrown away; then those that are dead are old news.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._file = os.path.join(os.path.abspath(root), "state", "watch", "deaths.json")
        data = storage.read_if_exists(self._file)
        self._told: set[str] | None = set(json.loads(data)) if data is not None else None
        self._open: dict[str, runs.Record] = {}
        self._newest = ""

    def look(self, deployed: Sequence[Deployed]) -> list[runs.Record]:
        """Return the runs that have died since the last look, told to all who want to know."""
        newest = runs.list_runs(self.root, limit=_NUM_LOOKED_AT)
        fresh = [run for run in newest if run["run_id"] > self._newest]
        self._open |= {run["run_id"]: run for run in fresh if run["status"] == "running"}
        self._newest = max([self._newest, *(run["run_id"] for run in fresh)])
        died = []
        for run_id, run in list(self._open.items()):
            status = runs.effective_status(run)
            if status not in ("running", "cancelling"):
                del self._open[run_id]
            if status == "died":
                died.append(run)
        return self._tell_of_new(died, deployed)

    def _tell_of_new(
        self, died: Sequence[runs.Record], deployed: Sequence[Deployed]
    ) -> list[runs.Record]:
        told = self._told if self._told is not None else {run["run_id"] for run in died}
        new = [run for run in died if run["run_id"] not in told]
        if new or self._told is None:
            told |= {run["run_id"] for run in new}
            newest = sorted(told)[-_NUM_LOOKED_AT:]
            storage.write(self._file, json.dumps(newest).encode())
            self._told = told
        for run in new:
            self._tell(run, deployed)
        return new

    def _tell(self, run: runs.Record, deployed: Sequence[Deployed]) -> None:
        said = {"run": run["run_id"], "dataset": run["name"]}
        _logger.error("run_died", extra=said)
        try:
            self._tell_prefect(run)
        except PrefectError as error:
            _logger.warning("prefect_not_told: %s", error, extra=said)
        for one in deployed:
            if one.dataset == run["name"]:
                try:
                    alert_of_death(one, run)
                except MmError as error:
                    _logger.error("alert_not_sent: %s", error, extra=said)

    def _tell_prefect(self, run: runs.Record) -> None:
        flow_run_id = run.get("flow_run_id")
        connection = connect(self.root)
        if flow_run_id is None or connection.prefect_url is None:
            return
        with open_prefect(connection) as prefect:
            if not prefect.flow_run(flow_run_id).has_ended:
                message = f"the process of run {run['run_id']} is gone"
                prefect.set_state(flow_run_id, "CRASHED", name="Died", message=message)


def alert_of_death(deployed: Deployed, run: runs.Record) -> int:
    """Tell of a run that died as its deployment file says; return how many were told."""
    return send_alert(
        load_deployment_config(deployed.path).alerts,
        "died",
        title=f"{run['name']}: a run died",
        body=(
            f"run {run['run_id']} on {run.get('host')}, process {run.get('pid')}, is gone without "
            "a word. What it committed is kept; the next run goes on from there."
        ),
    )
