"""What is deployed from this machine: `services/deployments.json` below a root.

`mm deploy` writes it; the watcher, `mm schedule` and the dashboard read it. Prefect's server is the
truth about schedules; this says where the files are and what to watch.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.config import suggest
from mmcore.errors import ConfigError, StorageError
from mmcore.operate.connection import services_directory
from mmcore.operate.deployments import Deployment, WatchSection

FORMAT = "mm.deployments"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What `mm deploy` has left for the services: what to watch, and where its file is."""

    name: str
    file: str
    """Relative to `directory`."""
    directory: str
    dataset: str
    watched: str | None
    settle_seconds: float = 2.0
    debounce_seconds: float = 10.0

    @property
    def path(self) -> str:
        """Return the deployment file, as an absolute path."""
        return os.path.join(self.directory, self.file)


def state_file(root: str) -> str:
    """Return where it is written what is deployed from this machine."""
    return os.path.join(services_directory(root), "deployments.json")


def remember_deployed(root: str, deployments: Sequence[Deployment], directory: str) -> None:
    """Add deployments to those that the services of a root look after."""
    known = {deployed.name: deployed for deployed in list_deployed(root)}
    for deployment in deployments:
        watch = deployment.config.watch or WatchSection()
        watched = deployment.watched
        if watched is not None and storage.is_local(watched):
            watched = os.path.normpath(os.path.join(directory, watched))
        known[deployment.config.name] = Deployed(
            name=deployment.config.name,
            file=deployment.file,
            directory=directory,
            dataset=deployment.dataset,
            watched=watched,
            settle_seconds=watch.settle_seconds,
            debounce_seconds=watch.debounce_seconds,
        )
    rows = [vars(deployed) for _, deployed in sorted(known.items())]
    value = {"format": FORMAT, "format_version": FORMAT_VERSION, "deployments": rows}
    storage.write(state_file(root), json.dumps(value, indent=1, sort_keys=True).encode())


def list_deployed(root: str) -> list[Deployed]:
    """Return what `mm deploy` has deployed below a local root, sorted by name."""
    path = state_file(root)
    data = storage.read_if_exists(path) if storage.is_local(root) else None
    if data is None:
        return []
    try:
        value: dict[str, Any] = json.loads(data)
        if (value["format"], value["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"{value['format']} version {value['format_version']}")
        return [Deployed(**row) for row in value["deployments"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{path} is not to be read: {error}. Delete it, then: mm deploy"
        ) from error


def find_deployed(root: str, name: str) -> Deployed:
    """Return one that is deployed below a root; ConfigError with a suggestion."""
    known = {deployed.name: deployed for deployed in list_deployed(root)}
    bare = re.sub(r"^[^/]*/", "", name)
    if bare in known:
        return known[bare]
    raise ConfigError(
        f"{name!r} is not deployed below {root}.{suggest(bare, list(known))} Deploy with: mm deploy"
    )
