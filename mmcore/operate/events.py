"""The one way to say that new data has arrived: a Prefect event, on which an automation acts.

`mm watch`, `mm notify-data` and the dashboard's POST /api/notify-data all call `notify_data`.
"""

import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.errors import ConfigError
from mmcore.operate.connection import Connection
from mmcore.storage import FileInfo
from mmcore.telemetry.prefect import PrefectApi, PrefectUnreachable

DATA_ARRIVED = "mm.data.arrived"
NUM_FIRST_KEYS = 5
_DATASET = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NAMESPACE = uuid.UUID("6f1c1a52-5b0e-4a57-9f44-0d6d1a1c7f10")


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """New data, as the event tells it."""

    dataset: str
    """The name of the recipe that it is for."""
    source: str
    """The folder or prefix that it came to."""
    num_files: int
    num_bytes: int
    first_keys: tuple[str, ...] = ()
    """The paths of the first few, relative to the source."""
    event_id: str | None = None
    """Equal ids are one event, however often it is said."""

    @staticmethod
    def of_files(dataset: str, source: str, files: Iterable[FileInfo]) -> "Arrival":
        """Return the arrival of files; the same files in the same state make the same event."""
        arrived = sorted(files)
        digest = hashlib.sha256(f"{dataset}\0{source}\0".encode())
        for file in arrived:
            digest.update(f"{file.path}\0{file.num_bytes}\0{file.version}\0".encode())
        return Arrival(
            dataset=dataset,
            source=source,
            num_files=len(arrived),
            num_bytes=sum(file.num_bytes for file in arrived),
            first_keys=tuple(file.path for file in arrived[:NUM_FIRST_KEYS]),
            event_id=str(uuid.uuid5(_NAMESPACE, digest.hexdigest())),
        )

    def payload(self) -> dict[str, Any]:
        """Return what the event carries."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "num_files": self.num_files,
            "num_bytes": self.num_bytes,
            "first_keys": list(self.first_keys),
        }


def notify_data(
    connection: Connection,
    *,
    dataset: str,
    source: str = "",
    num_files: int = 0,
    num_bytes: int = 0,
    first_keys: Sequence[str] = (),
    event_id: str | None = None,
) -> str:
    """Emit `mm.data.arrived` and return the event's id.

    ConfigError for a name that no dataset can have; PrefectUnreachable when nothing was said, so
    that it can be said again.
    """
    if not _DATASET.fullmatch(dataset):
        raise ConfigError(
            f"{dataset!r} is no name of a dataset: expected small letters, digits, - and _."
        )
    payload = Arrival(
        dataset=dataset,
        source=source,
        num_files=num_files,
        num_bytes=num_bytes,
        first_keys=tuple(first_keys[:NUM_FIRST_KEYS]),
    ).payload()
    with open_prefect(connection) as prefect:
        return prefect.emit_event(
            DATA_ARRIVED, dataset_resource(dataset), payload, event_id=event_id
        )


def notify_arrival(connection: Connection, arrival: Arrival) -> str:
    """Emit the event of an arrival and return its id."""
    return notify_data(connection, **{**arrival.payload(), "event_id": arrival.event_id})


def dataset_resource(dataset: str) -> dict[str, str]:
    """Return the resource that events about a dataset are of."""
    return {"prefect.resource.id": f"mm.dataset.{dataset}"}


def open_prefect(connection: Connection) -> PrefectApi:
    """Return a client of the root's Prefect server; PrefectUnreachable when none is known."""
    if connection.prefect_url is None:
        raise PrefectUnreachable(
            f"no Prefect server is known for the root {connection.root}. Start the services with "
            "`mm up`, or set PREFECT_API_URL."
        )
    return PrefectApi(connection.prefect_url, connection.prefect_auth)
