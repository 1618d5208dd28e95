"""The curves of a training run in MLflow; `mlflow_store` says where."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import Metric, Param

from mmcore.errors import ConfigError
from mmcore.telemetry.mlflow_store import (
    connect,
    experiment_id_of,
    explained,
    find_or_create_run,
)

_MAX_PARAM_CHARACTERS = 6000
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class TrainingTracker:
    """Records one training run; a second tracker with the same key goes on with the same run."""

    def __init__(self, tracking_root: str, experiment: str, run_name: str, run_key: str) -> None:
        self._client = connect(tracking_root)
        with explained("record the training run"):
            experiment_id = experiment_id_of(self._client, tracking_root, experiment)
            self._run_id, resumed = find_or_create_run(
                self._client, experiment_id, run_name, run_key
            )
            if resumed:
                self._client.update_run(self._run_id, status="RUNNING")
        # steps by metric that an earlier attempt has recorded; None: this run is new
        self._recorded: dict[str, set[int]] | None = {} if resumed else None

    @property
    def run_id(self) -> str:
        """Return MLflow's id of the run."""
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record configuration; nested mappings become dotted names. The first value stands."""
        with explained("record parameters"):
            known = self._client.get_run(self._run_id).data.params
            news = [
                Param(name, str(value)[:_MAX_PARAM_CHARACTERS])
                for name, value in _flat(params)
                if name not in known
            ]
            for first in range(0, len(news), 100):
                self._client.log_batch(self._run_id, params=news[first : first + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers of one step; what a resumed run repeats is recorded once."""
        now = int(time.time() * 1000)
        with explained("record metrics"):
            news = [
                Metric(name, float(value), now, step)
                for name, value in sorted(metrics.items())
                if step not in self._steps_recorded(name)
            ]
            for first in range(0, len(news), 500):
                self._client.log_batch(self._run_id, metrics=news[first : first + 500])

    def finish(self, status: str = "finished") -> None:
        """End the run as `finished`, `failed` or `killed`."""
        if status.lower() not in _STATUSES:
            raise ConfigError(f"run status {status!r} is unknown. Use one of {sorted(_STATUSES)}.")
        with explained("end the training run"):
            self._client.set_terminated(self._run_id, status=_STATUSES[status.lower()])

    def _steps_recorded(self, name: str) -> set[int]:
        if self._recorded is None:
            return set()
        if name not in self._recorded:
            history = self._client.get_metric_history(self._run_id, name)
            self._recorded[name] = {point.step for point in history}
        return self._recorded[name]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
