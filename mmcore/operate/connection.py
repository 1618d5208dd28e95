"""Where the services of a root are, for whoever wants to talk to them.

`mm up` writes `<root>/services/services.json` and `<root>/services/token`; the environment
(PREFECT_API_URL, RAY_ADDRESS, MLFLOW_TRACKING_URI and their secrets) wins, so that a team's own
servers take the place of the local ones one by one.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from mmcore import storage
from mmcore.core.process import Process
from mmcore.errors import StorageError

FORMAT = "mm.services"
FORMAT_VERSION = 1
USER = "mm"
"""The name beside the token, wherever a service wants a name as well."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Addresses and secrets; None where there is no such service."""

    root: str
    prefect_url: str | None = None
    """With `/api` at its end."""
    prefect_auth: str | None = field(default=None, repr=False)
    """`user:password`, as PREFECT_API_AUTH_STRING."""
    ray_address: str | None = None
    """`host:port`, as RAY_ADDRESS."""
    ray_token_file: str | None = None
    mlflow_url: str | None = None
    dashboard_url: str | None = None
    token: str | None = field(default=None, repr=False)
    """The one secret of the local services; there also when they do not run."""


def services_directory(root: str) -> str:
    """Return where the local services of a root keep what is theirs."""
    return os.path.join(os.path.abspath(root), "services")


def token_file(root: str) -> str:
    """Return where the one secret of the local services lies."""
    return os.path.join(services_directory(root), "token")


def read_token(root: str) -> str | None:
    """Return the one secret of the local services, or None when they were never started."""
    data = storage.read_if_exists(token_file(root)) if storage.is_local(root) else None
    return data.decode("ascii").strip() if data else None


def read_services(root: str) -> dict[str, Any] | None:
    """Return `services.json`, whoever wrote it and whether or not he lives; None without one.

    StorageError when it is damaged or of another version.
    """
    if not storage.is_local(root):
        return None
    path = os.path.join(services_directory(root), "services.json")
    data = storage.read_if_exists(path)
    if data is None:
        return None
    try:
        state: dict[str, Any] = json.loads(data)
        found = (state["format"], state["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {error}. Delete it, then: mm up") from error
    if found != (FORMAT, FORMAT_VERSION):
        raise StorageError(
            f"{path} is {found[0]} version {found[1]}, and this mm reads {FORMAT} version "
            f"{FORMAT_VERSION}. Stop the services with the mm that started them."
        )
    return state


def running_services(root: str) -> dict[str, Any] | None:
    """Return `services.json` while its supervisor lives, else None."""
    state = read_services(root)
    if state is None:
        return None
    supervisor = Process(**state["supervisor"])
    return state if supervisor.is_here and supervisor.is_alive else None


def connect(root: str) -> Connection:
    """Return how to reach the services of a root; asks none of them whether it is well."""
    state = running_services(root)
    services: dict[str, Any] = state["services"] if state else {}
    token = read_token(root)
    here = {name: service.get("url") for name, service in services.items()}
    prefect_here = services.get("prefect", {}).get("api_url")
    prefect_url = os.environ.get("PREFECT_API_URL") or prefect_here
    prefect_auth = os.environ.get("PREFECT_API_AUTH_STRING")
    if not prefect_auth and token and prefect_here and prefect_url == prefect_here:
        prefect_auth = f"{USER}:{token}"
    ray_here = services.get("ray", {}).get("address")
    ray_address = os.environ.get("RAY_ADDRESS") or ray_here
    ray_token = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not ray_token and ray_address is not None and ray_address == ray_here:
        ray_token = token_file(root)
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    return Connection(
        root=root,
        prefect_url=prefect_url,
        prefect_auth=prefect_auth or None,
        ray_address=ray_address,
        ray_token_file=ray_token or None,
        mlflow_url=tracking if tracking.startswith("http") else here.get("mlflow"),
        dashboard_url=here.get("dashboard"),
        token=token,
    )
