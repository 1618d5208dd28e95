"""The same as JSON, for scripts: `curl -H "Authorization: Bearer $(cat .mm/services/token)"`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mmcore.core.runs import effective_status, load_run, request_cancel
from mmcore.dashboard.catalogue import Version
from mmcore.dashboard.index.runs import RunIndex
from mmcore.dashboard.pages.runs import STATUSES, command_of, live_facts
from mmcore.errors import ConfigError
from mmcore.operate.connection import connect
from mmcore.operate.events import notify_data

_WAIT_SECONDS = 20.0
_MAX_TEXT = 200
_NOTIFY_FIELDS: Mapping[str, type] = {
    "dataset": str,
    "source": str,
    "num_files": int,
    "num_bytes": int,
    "first_keys": list,
    "event_id": str,
}


def list_runs(request: Request) -> Response:
    """Return a page of runs that fit `status`, `name` and `q`; `before` is the last `older`."""
    index: RunIndex = request.app.state.runs
    index.refresh()
    query = request.query_params
    status = query.get("status", "")
    if status and status not in STATUSES:
        raise HTTPException(400, f"status is one of: {', '.join(STATUSES)}.")
    page = index.page(
        status=status,
        name=query.get("name", "")[:_MAX_TEXT],
        text=query.get("q", "")[:_MAX_TEXT],
        before=query.get("before", ""),
    )
    runs = [{key: row[key] for key in row.keys() if key != "words"} for row in page.runs]  # noqa: SIM118
    return _answer("runs", {"runs": runs, "older": page.older or None, "counts": index.counts()})


def one_run(request: Request) -> Response:
    """Return the record of a run, how it is, and its steps."""
    root = request.app.state.settings.root
    try:
        run = load_run(root, request.path_params["run_id"])
    except ConfigError as error:
        raise HTTPException(404, "There is no such run.") from error
    status = effective_status(run)
    progress = request.app.state.follower.progress(run["url"], status)
    facts = live_facts(run, status, progress)
    step = facts.pop("step")
    value = {
        "run": {**run, "status": status},
        "progress": {**facts, "step": step.name if step else None},
        "steps": [asdict(each) for each in progress.steps.values()],
        "command": command_of(run, root),
    }
    return _answer("run", value)


async def cancel_run(request: Request) -> Response:
    """Ask a run to stop: `{"why": "..."}`."""
    why = str((await _body(request)).get("why") or "asked by the API")[:_MAX_TEXT]
    root, run_id = request.app.state.settings.root, request.path_params["run_id"]
    try:
        asked = await run_in_threadpool(request_cancel, root, run_id, by="api", why=why)
    except ConfigError as error:
        raise HTTPException(404, "There is no such run.") from error
    return _answer("cancel", {"run_id": run_id, "was_asked": asked})


def list_models(request: Request) -> Response:
    """Return every model with its versions, its champion and the ledger."""
    known = request.app.state.catalogue.get(_WAIT_SECONDS)
    if known.value is None:
        raise HTTPException(503, known.error or "The registry is being opened.")
    models = [
        {
            "name": model.name,
            "champion": model.champion,
            "metric": model.metric,
            "versions": [_version(version) for version in model.versions],
            "ledger": [asdict(entry) for entry in model.entries],
        }
        for model in known.value.values()
    ]
    return _answer("models", {"models": models})


async def notify(request: Request) -> Response:
    """Say that new data has arrived: `{"dataset": "stamps", "source": "/data/new"}`."""
    fields = await _body(request)
    for name, value in fields.items():
        kind = _NOTIFY_FIELDS.get(name)
        if kind is None:
            raise HTTPException(400, f"{name!r} is not known. Use: {', '.join(_NOTIFY_FIELDS)}.")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise HTTPException(400, f"{name} has to be of type {kind.__name__}.")
    if not fields.get("dataset"):
        raise HTTPException(400, 'Say which dataset: {"dataset": "stamps"}.')
    root = request.app.state.settings.root

    def say() -> str:
        return notify_data(connect(root), **fields)

    try:
        event_id = await run_in_threadpool(say)
    except ConfigError as error:
        raise HTTPException(400, str(error)) from error
    return _answer("notify-data", {"event_id": event_id})


def _version(version: Version) -> dict[str, Any]:
    value = asdict(version)
    del value["card"]
    return value


async def _body(request: Request) -> dict[str, Any]:
    data = await request.body()
    if not data:
        return {}
    try:
        value = json.loads(data)
    except ValueError as error:
        raise HTTPException(400, f"The body is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "The body has to be a JSON object.")
    return value


def _answer(schema: str, value: Mapping[str, Any]) -> Response:
    return JSONResponse({"schema": f"mm.{schema}/1", **value})


routes = [
    Route("/api/runs", list_runs, methods=["GET"]),
    Route("/api/runs/{run_id:id}", one_run, methods=["GET"]),
    Route("/api/runs/{run_id:id}/cancel", cancel_run, methods=["POST"]),
    Route("/api/models", list_models, methods=["GET"]),
    Route("/api/notify-data", notify, methods=["POST"]),
]
