"""Runs: the list, one run live, cancelling it and running it again."""

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from sqlite3 import Row
from typing import Any
from urllib.parse import parse_qs, urlencode

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from mmcore.core.runs import ENDED, cancel_request, effective_status, load_run, request_cancel
from mmcore.dashboard.dag import NODE_HEIGHT, NODE_WIDTH, draw, notes
from mmcore.dashboard.index.catalogue import TRAIN_STEP
from mmcore.dashboard.index.runs import RunIndex
from mmcore.dashboard.index.trainings import Training, unended_trainings
from mmcore.dashboard.prefect_view import PrefectView
from mmcore.dashboard.progress import (
    RUNNING,
    Follower,
    RunProgress,
    overall_share,
    remaining_seconds,
)
from mmcore.dashboard.run_log import LogPart, read_on, read_tail
from mmcore.dashboard.templating import ago, macro, parse_time, render, render_text
from mmcore.errors import ConfigError
from mmcore.telemetry.prefect import PrefectApi, PrefectError

STATUSES = (
    "running", "cancelling", "done", "nothing_to_do", "failed", "died", "cancelled", "interrupted",
)  # fmt: skip
UNENDED = ("running", "cancelling")
_LOOK_SECONDS = 0.5
_KEEP_ALIVE_SECONDS = 15.0
_STREAM_SECONDS = 600.0  # then the browser comes again, and is asked for its session again
_MAX_STREAMS = 40
_MAX_TEXT = 200
_SAID = {
    "asked": "The run was asked to stop. What is done is kept.",
    "asked_without_prefect": "The run was asked to stop. Prefect did not answer and was not told.",
    "had_ended": "The run had ended already.",
    "retried": "Prefect will run it again: it appears in the list of runs when it starts.",
}
logger = logging.getLogger(__name__)


def attach(app: Starlette) -> None:
    """Open the index of runs."""
    app.state.runs = RunIndex(app.state.database, app.state.settings.root)
    app.state.follower = Follower()
    app.state.prefect = PrefectView(app.state.settings.prefect)
    app.state.num_streams = 0


def list_page(request: Request) -> Response:
    """Show runs, the newest first."""
    index: RunIndex = request.app.state.runs
    index.refresh()
    query = request.query_params
    status = query.get("status", "")
    status = status if status in STATUSES else ""
    name, text = query.get("name", "")[:_MAX_TEXT], query.get("q", "")[:_MAX_TEXT].strip()
    page = index.page(
        status=status,
        name=name,
        text=text,
        before=query.get("before", ""),
        after=query.get("after", ""),
    )
    counts = index.counts(name)

    def address(**changes: str) -> str:
        wanted = {"status": status, "name": name, "q": text, **changes}
        found = urlencode({key: value for key, value in wanted.items() if value})
        return f"/runs?{found}" if found else "/runs"

    return render(
        request,
        "run_table.html" if request.headers.get("hx-target") == "run-list" else "runs.html",
        section="runs",
        title="Runs",
        rows=Markup("").join(_row(row, ago(row["started_at"])) for row in page.runs),
        counts=counts,
        total=sum(counts.values()),
        statuses=[known for known in STATUSES if counts.get(known) or known == status],
        status=status,
        name=name,
        names=index.names(),
        text=text,
        address=address,
        newer=address(after=page.newer) if page.newer else "",
        older=address(before=page.older) if page.older else "",
        num_unread=index.num_unread,
    )


@lru_cache(maxsize=4096)
def _row(run: Row, _how_long_ago: str) -> Markup:
    """Return the row of a run; all that it says follows from the arguments."""
    return macro("run_row.html", "row")(run)


def run_page(request: Request) -> Response:
    """Show one run."""
    run, status = _load(request)
    progress = request.app.state.follower.progress(run["url"], status)
    log = read_tail(run["url"])
    return render(
        request,
        "run.html",
        section="runs",
        title=run.get("name") or "unknown",
        run=run,
        log=log,
        again=command_of(run, request.app.state.settings.root),
        retry_by_prefect=bool(run.get("flow_run_id")) and request.app.state.prefect.is_known,
        said=_SAID.get(request.query_params.get("said", ""), ""),
        **_live_values(request, run, status, progress),
    )


async def live(request: Request) -> Response:
    """Send what changes of a run, as it changes; ends with the run."""
    await run_in_threadpool(_load, request)
    state = request.app.state
    if state.num_streams >= _MAX_STREAMS:
        raise HTTPException(503, "too many pages are open that follow a run live")
    start = request.headers.get("last-event-id") or request.query_params.get("log", "0")
    offset = int(start) if start.isdecimal() and len(start) < 16 else 0
    return StreamingResponse(
        _events(request, offset),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def cancel(request: Request) -> Response:
    """Ask a run to stop; Prefect is told as well when the run is one of its own."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    why = fields.get("why", [""])[0].strip()[:_MAX_TEXT] or "no reason given"
    return await run_in_threadpool(_cancel, request, why)


def _cancel(request: Request, why: str) -> Response:
    run, _ = _load(request)
    root, prefect = request.app.state.settings.root, request.app.state.prefect
    was_asked = request_cancel(root, run["run_id"], by="dashboard", why=why)
    if was_asked and run.get("flow_run_id") and prefect.is_known:
        try:
            prefect.call(lambda api: api.cancel(run["flow_run_id"], why=why))
        except PrefectError as error:
            # the run itself has been asked, which is enough to end it
            logger.warning("prefect_not_told", extra={"run_id": run["run_id"], "error": str(error)})
            return _back(run, "asked_without_prefect")
    return _back(run, "asked" if was_asked else "had_ended")


def retry(request: Request) -> Response:
    """Have Prefect run it again, with the same parameters."""
    run, _ = _load(request)
    prefect: PrefectView = request.app.state.prefect
    if not run.get("flow_run_id") or not prefect.is_known:
        raise HTTPException(409, "this run was not one of Prefect's: use the command on its page")

    def create(api: PrefectApi) -> None:
        before = api.flow_run(run["flow_run_id"])
        if before.deployment_id is None:
            raise HTTPException(409, "this flow run has no deployment: use the command on its page")
        api.create_flow_run(before.deployment_id, before.parameters)

    prefect.call(create)
    return _back(run, "retried")


def command_of(run: Mapping[str, Any], root: str) -> str:
    """Return the command that does the same again, and goes on from what was done."""
    words = ["mm", "run", str(run.get("recipe") or "RECIPE"), "--root", root]
    if run.get("executor") not in (None, "", "local"):
        words += ["--executor", str(run["executor"])]
    for option, values in (("--set", run.get("overrides")), ("--until", run.get("until"))):
        for value in values or ():
            words += [option, str(value)]
    return shlex.join(words)


def live_facts(run: Mapping[str, Any], status: str, progress: RunProgress) -> dict[str, Any]:
    """Return where a run is: its share done, time passed and left, the step at hand."""
    steps = list(progress.steps.values())
    now = _now(run, progress)
    working = [step for step in steps if step.status == RUNNING]
    return {
        "share": overall_share(steps, now),
        "elapsed": run.get("seconds") or now,
        "left": remaining_seconds(steps, now) if status in UNENDED else None,
        "step": working[-1] if working else None,
        "num_steps": len(steps),
        "num_done": sum(1 for step in steps if step.status in ("done", "skipped")),
    }


def _live_values(
    request: Request, run: Mapping[str, Any], status: str, progress: RunProgress
) -> dict[str, Any]:
    steps = list(progress.steps.values())
    now = _now(run, progress)
    num_workers = int(run.get("num_workers") or 1)
    costs = [step.core_seconds(now, num_workers) for step in steps]
    drawing = draw({step.name: step.inputs for step in steps})
    return {
        "status": status,
        "is_ended": status not in UNENDED,
        "facts": live_facts(run, status, progress),
        "steps": steps,
        "by_name": progress.steps,
        "training": _training_of(request, run, progress),
        "now": now,
        "num_workers": num_workers,
        "cost": sum(cost for cost in costs if cost is not None),
        "drawing": drawing,
        "notes": notes,
        "node_width": NODE_WIDTH,
        "node_height": NODE_HEIGHT,
        "cancel": cancel_request(run["url"]) if status in ("cancelling", "cancelled") else None,
    }


def _training_of(
    request: Request, run: Mapping[str, Any], progress: RunProgress
) -> Training | None:
    """Return what a run trains at this moment; None while it does something else."""
    step = progress.steps.get(TRAIN_STEP)
    if step is None or step.status != RUNNING:
        return None
    found = unended_trainings(request.app.state.settings.root)
    return next((one for one in found if one.run_id == run["run_id"]), None)


def _now(run: Mapping[str, Any], progress: RunProgress) -> float:
    """Return the seconds since the run began; of one that has ended, how long it took."""
    if run.get("seconds") is not None:
        return float(run["seconds"])
    started = parse_time(run.get("started_at"))
    if run["status"] != "running" or started is None:
        return progress.now
    return max(progress.now, (datetime.now(UTC) - started).total_seconds())


async def _events(request: Request, offset: int) -> AsyncIterator[str]:
    state = request.app.state
    state.num_streams += 1
    try:
        sent: dict[str, str] = {}
        quiet = 0.0
        yield "retry: 2000\n\n"
        for _ in range(int(_STREAM_SECONDS / _LOOK_SECONDS)):
            if state.is_closing:
                return
            parts, log, is_ended = await run_in_threadpool(_look, request, offset)
            offset = log.end
            said = False
            for name, html in parts.items():
                if sent.get(name) != html:
                    sent[name] = html
                    said = True
                    yield _event(name, html, offset)
            if is_ended and not log.lines:
                yield _event("end", "", offset)
                return
            quiet = 0.0 if said else quiet + _LOOK_SECONDS
            if quiet >= _KEEP_ALIVE_SECONDS:
                quiet = 0.0
                yield ": still here\n\n"
            if not is_ended:
                await asyncio.sleep(_LOOK_SECONDS)
    finally:
        state.num_streams -= 1


def _look(request: Request, offset: int) -> tuple[dict[str, str], LogPart, bool]:
    run, status = _load(request)
    progress = request.app.state.follower.progress(run["url"], status)
    values = {"run": run, **_live_values(request, run, status, progress)}
    log = read_on(run["url"], offset)
    parts = {
        name: render_text(request, f"run_{name}.html", **values)
        for name in ("summary", "graph", "steps")
    }
    if values["training"] is not None:  # what was drawn stays while the run goes on to other steps
        parts["training"] = render_text(request, "run_training.html", **values)
    if log.lines:
        parts["log"] = render_text(request, "run_log.html", lines=log.lines)
    return parts, log, status not in UNENDED


def _event(name: str, html: str, offset: int) -> str:
    data = "".join(f"data: {line}\n" for line in html.splitlines()) or "data: \n"
    return f"event: {name}\nid: {offset}\n{data}\n"


def _load(request: Request) -> tuple[dict[str, Any], str]:
    try:
        run = load_run(request.app.state.settings.root, request.path_params["run_id"])
    except ConfigError as error:
        raise HTTPException(404, "There is no such run.") from error
    return run, effective_status(run)


def _back(run: Mapping[str, Any], said: str) -> Response:
    return RedirectResponse(f"/runs/{run['run_id']}?said={said}", status_code=303)


assert set(ENDED) <= set(STATUSES), "a status that the list cannot filter by"

routes = [
    Route("/runs", list_page, methods=["GET"]),
    Route("/runs/{run_id:id}", run_page, methods=["GET"]),
    Route("/runs/{run_id:id}/live", live, methods=["GET"]),
    Route("/runs/{run_id:id}/cancel", cancel, methods=["POST"]),
    Route("/runs/{run_id:id}/retry", retry, methods=["POST"]),
]
