"""The shape of a service: what to start, and how to ask whether it is well."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WORK_POOL = "mm"
"""Where deployments of this project look for a worker."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How to ask a service whether it is well."""

    kind: Literal["http", "worker", "process"]
    """`http`: it answers; `worker`: Prefect has heard from it lately; `process`: it runs."""
    url: str = ""
    """What to get; for a worker, the API of Prefect."""
    auth: str = field(default="", repr=False)
    """`user:password`, or empty."""
    name: str = ""
    """Of the worker."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process to start, to watch over and to stop."""

    name: str
    command: tuple[str, ...]
    check: Check
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Besides that of the supervisor."""
    after: tuple[str, ...] = ()
    """What has to be well before it is started."""
    port_names: tuple[str, ...] = ()
    """The first one is where it is spoken to."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What `services.json` says of it: `url`, `address`, `port`."""
    start_seconds: float = 120.0
    """It has failed when it is not well by then."""
    first_start: str = ""
    """What to tell who waits."""
    children_survive: bool = False
    """What it started goes on when it is started anew: a worker's flows."""
