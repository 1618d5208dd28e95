"""Home: what runs, what is next, what failed and why, who is champion, what arrived."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmcore.core.runs import effective_status, load_run
from mmcore.dashboard.index.runs import RunIndex
from mmcore.dashboard.pages.models import headline
from mmcore.dashboard.pages.runs import UNENDED, command_of, live_facts
from mmcore.dashboard.prefect_view import PrefectView
from mmcore.dashboard.templating import parse_time, render
from mmcore.errors import ConfigError, MmError
from mmcore.operate.connection import read_services, running_services
from mmcore.recipe.retrain import DecisionRecord, list_decisions

_NUM_RUNNING, _NUM_FAILED, _NUM_LATEST, _NUM_ARRIVED = 8, 4, 6, 6
_WAIT_SECONDS = 0.3
_LATELY = timedelta(days=2)
"""For how long a failure stays on the page when a later run went well."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A run that failed, and what to do about it."""

    run: Mapping[str, Any]
    status: str
    is_over: bool
    """Whether a later run of the same recipe went well."""
    command: str


def home(request: Request) -> Response:
    """Show how things stand."""
    state = request.app.state
    index: RunIndex = state.runs
    index.refresh()
    prefect: PrefectView = state.prefect
    models = state.catalogue.get(_WAIT_SECONDS)
    return render(
        request,
        "home_parts.html" if request.headers.get("hx-target") == "home" else "home.html",
        section="home",
        title="Home",
        root=state.settings.root,
        running=_running(request),
        failures=_failures(request),
        latest=index.page().runs[:_NUM_LATEST],
        num_unread=index.num_unread,
        prefect_is_known=prefect.is_known,
        upcoming=prefect.upcoming.get(_WAIT_SECONDS) if prefect.is_known else None,
        models=models,
        compare=headline,
        arrived=_arrived(state.settings.root),
        services=_services(state.settings.root),
    )


def _running(request: Request) -> Sequence[Mapping[str, Any]]:
    found = []
    for row in request.app.state.runs.latest(UNENDED, _NUM_RUNNING):
        run = _record(request, row["run_id"])
        if run is None:
            continue
        status = effective_status(run)
        progress = request.app.state.follower.progress(run["url"], status)
        found.append({"run": run, "status": status, **live_facts(run, status, progress)})
    return found


def _failures(request: Request) -> Sequence[Failure]:
    index: RunIndex = request.app.state.runs
    failures = []
    for row in index.latest(("failed", "died"), _NUM_FAILED):
        run = _record(request, row["run_id"])
        if run is None:
            continue
        newest = index.newest_of(row["name"])
        is_over = newest is not None and newest["status"] in ("done", "nothing_to_do")
        if is_over and _is_old(run):
            continue
        command = command_of(run, request.app.state.settings.root)
        failures.append(Failure(run, row["status"], is_over, command))
    return failures


def _is_old(run: Mapping[str, Any]) -> bool:
    started = parse_time(run.get("started_at"))
    return started is not None and datetime.now(UTC) - started > _LATELY


def _record(request: Request, run_id: str) -> Mapping[str, Any] | None:
    try:
        return load_run(request.app.state.settings.root, run_id)
    except (ConfigError, ValueError):
        return None  # deleted or damaged since it was indexed; the list of runs says so


def _arrived(root: str) -> Sequence[DecisionRecord] | str:
    """Return what came in lately and what was decided, or why that cannot be read."""
    try:
        return list_decisions(root, limit=_NUM_ARRIVED)
    except (MmError, ValueError, KeyError, TypeError) as error:
        logger.warning("decisions_unreadable", extra={"error": str(error)})
        return f"The records of what arrived cannot be read: {error}"


def _services(root: str) -> Mapping[str, Any]:
    """Return the services of `mm up`: none were started, they are stopped, or how each is."""
    try:
        known, alive = read_services(root), running_services(root)
    except (MmError, KeyError, TypeError) as error:
        return {"state": "unreadable", "error": str(error), "services": {}}
    if known is None:
        return {"state": "none", "error": "", "services": {}}
    state = "up" if alive is not None else "stopped"
    return {"state": state, "error": "", "services": (alive or known).get("services", {})}


routes = [Route("/", home, methods=["GET"])]
