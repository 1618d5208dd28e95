"""Models: their versions, what each learned from, who is champion, and changing that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mmcore import storage
from mmcore.core.lineage import DATASETS
from mmcore.core.manifest import Manifest, load_manifest
from mmcore.dashboard.catalogue import Catalogue, Model, Version
from mmcore.dashboard.reports import GONE, send_report
from mmcore.dashboard.templating import render
from mmcore.errors import IntegrityError, StepError, StorageError
from mmcore.register.ledger import PROMOTED, ChampionChanged, crown, roll_back

_WAIT_SECONDS = 0.4
_WRITE_WAIT_SECONDS = 20.0
_PAGE_SIZE = 50
_MAX_WHY = 2000
_LEAST_CHANGE = 5e-7  # less is not seen in what is recorded
_NEUTRAL = ("chance_", "majority_", "num_")
_SAID = {
    "promoted": "It is the champion now.",
    "rolled_back": "Rolled back: the champion before has its place again.",
    "was": "It was the champion already; nothing changed.",
}


@dataclass(frozen=True)
class Comparison:
    """A metric of two versions."""

    name: str
    value: float
    other: float | None
    change: float | None
    better: str
    """`up`, `down`, or nothing where there is no better."""

    @property
    def is_context(self) -> bool:
        """Return whether it is no figure of the model: chance, the majority, how many."""
        return self.name.rpartition(".")[2].startswith(_NEUTRAL)


def attach(app: Starlette) -> None:
    """Begin to read the registry, so that it is known when the first page asks."""
    app.state.catalogue = Catalogue(app.state.settings.root)
    app.state.catalogue.get()


def list_page(request: Request) -> Response:
    """Show all models with their champions."""
    catalogue: Catalogue = request.app.state.catalogue
    known = catalogue.get(_WAIT_SECONDS)
    return render(
        request,
        "model_list.html" if request.headers.get("hx-target") == "model-list" else "models.html",
        section="models",
        title="Models",
        known=known,
        models=list((known.value or {}).values()),
        compare=headline,
    )


def model_page(request: Request) -> Response:
    """Show the versions of a model and who was champion when."""
    model = _model(request)
    before = request.query_params.get("before", "")
    versions = [
        one for one in model.versions if not before.isdecimal() or one.version < int(before[:9])
    ]
    page = versions[:_PAGE_SIZE]
    return render(
        request,
        "model.html",
        section="models",
        title=model.name,
        model=model,
        versions=page,
        older=page[-1].version if len(versions) > _PAGE_SIZE else None,
        is_first=not before,
        headline=headline(model.current, model.before, model.metric),
        trend=_trend(model),
        said=_SAID.get(request.query_params.get("said", ""), ""),
    )


def version_page(request: Request) -> Response:
    """Show one version: figures beside the champion's, card, lineage."""
    model = _model(request)
    version = _version(request, model)
    is_champion = version.version == model.champion
    other = model.before if is_champion else model.current
    catalogue: Catalogue = request.app.state.catalogue
    dataset = _manifest(storage.join(request.app.state.settings.root, DATASETS, version.dataset))
    train_url = catalogue.step(version, "train")
    evaluate_url = catalogue.step(version, "evaluate")
    return render(
        request,
        "model_version.html",
        section="models",
        title=f"{model.name} version {version.version}",
        model=model,
        version=version,
        is_champion=is_champion,
        other=other,
        other_is="the champion before" if is_champion else "the champion",
        headline=headline(version, other, model.metric),
        comparisons=comparisons(version, other),
        same_test_set=other is None or other.test_set == version.test_set,
        dataset=dataset,
        train=_manifest(train_url) if train_url else None,
        has_report=bool(evaluate_url) and storage.exists(f"{evaluate_url}/report.html"),
        reigns=[entry for entry in model.entries if entry.version == version.version],
    )


def report(request: Request) -> Response:
    """Send the evaluation report of a version, in a sandbox of its own."""
    version = _version(request, _model(request))
    url = request.app.state.catalogue.step(version, "evaluate")
    if not url:
        raise HTTPException(404, GONE)
    return send_report(storage.join(url, "report.html"))


async def promote(request: Request) -> Response:
    """Make a version the champion."""
    why = await _why(request)

    def act(registry: Any, root: str, model: Model) -> str:
        version = _version(request, model).version
        if version == model.champion:
            return "was"
        crown(registry, root, model.name, version, kind=PROMOTED, why=why, by="dashboard")
        return "promoted"

    return await run_in_threadpool(_change, request, act)


async def demote(request: Request) -> Response:
    """Give the place back to the champion before."""
    why = await _why(request)

    def act(registry: Any, root: str, model: Model) -> str:
        roll_back(registry, root, model.name, why=why, by="dashboard")
        return "rolled_back"

    return await run_in_threadpool(_change, request, act)


def headline(version: Version | None, other: Version | None, metric: str) -> Sequence[Comparison]:
    """Return the few figures to look at first, beside those of another version."""
    if version is None:
        return []
    names = dict.fromkeys([metric, "accuracy", "macro_f1"])
    found = [
        _compare(name, version.metrics[name], other) for name in names if name in version.metrics
    ]
    if version.mean_recall is not None:
        before = other.mean_recall if other else None
        found.append(_comparison("mean R@10", version.mean_recall, before))
    return found


def comparisons(version: Version, other: Version | None) -> Sequence[Comparison]:
    """Return every figure of a version beside that of another."""
    return [_compare(name, value, other) for name, value in version.metrics.items()]


def _compare(name: str, value: float, other: Version | None) -> Comparison:
    return _comparison(name, value, other.metrics.get(name) if other else None)


def _comparison(name: str, value: float, before: float | None) -> Comparison:
    if before is None:
        return Comparison(name, value, None, None, "")
    change = value - before
    compared = Comparison(name, value, before, change, "up" if change > 0 else "down")
    is_neutral = compared.is_context or abs(change) < _LEAST_CHANGE
    return replace(compared, better="") if is_neutral else compared


def _trend(model: Model) -> Mapping[str, Any] | None:
    """Return a line through the deciding metric of the last versions, in SVG coordinates."""
    shown = [one for one in reversed(model.versions[:_PAGE_SIZE]) if model.metric in one.metrics]
    if len(shown) < 2:
        return None
    values = [one.metrics[model.metric] for one in shown]
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    points = [
        (round(8 + 584 * index / (len(values) - 1), 1), round(72 - 60 * (value - low) / spread, 1))
        for index, value in enumerate(values)
    ]
    return {
        "line": " ".join(f"{x},{y}" for x, y in points),
        "points": list(zip(points, shown, values, strict=True)),
        "low": low,
        "high": high,
    }


async def _why(request: Request) -> str:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    why = fields.get("why", [""])[0].strip()
    if not why:
        raise HTTPException(400, "Say why: the reason stays in the ledger.")
    return why[:_MAX_WHY]


def _change(request: Request, act: Callable[[Any, str, Model], str]) -> Response:
    from mmcore.telemetry.model_registry import ModelRegistry  # loaded long since by the catalogue

    catalogue: Catalogue = request.app.state.catalogue
    model = _model(request, wait_seconds=_WRITE_WAIT_SECONDS)
    root = request.app.state.settings.root
    try:
        said = act(ModelRegistry(root), root, model)
    except (ChampionChanged, StepError) as error:
        raise HTTPException(409, str(error)) from error
    finally:
        catalogue.drop()
        catalogue.get(_WRITE_WAIT_SECONDS)
    return RedirectResponse(f"/models/{model.name}?said={said}", status_code=303)


def _model(request: Request, wait_seconds: float = 10.0) -> Model:
    known = request.app.state.catalogue.get(wait_seconds)
    if known.value is None:
        raise HTTPException(503, known.error or "The registry is being opened: load again.")
    model: Model | None = known.value.get(request.path_params["model"])
    if model is None:
        raise HTTPException(404, "There is no such model.")
    return model


def _version(request: Request, model: Model) -> Version:
    version = model.version(request.path_params["version"])
    if version is None:
        raise HTTPException(404, f"{model.name} has no such version.")
    return version


def _manifest(url: str) -> Manifest | None:
    try:
        return load_manifest(url)
    except (IntegrityError, StorageError):
        return None


_MODEL = "/models/{model:name}"
routes = [
    Route("/models", list_page, methods=["GET"]),
    Route(_MODEL, model_page, methods=["GET"]),
    Route(f"{_MODEL}/rollback", demote, methods=["POST"]),
    Route(f"{_MODEL}/{{version:int}}", version_page, methods=["GET"]),
    Route(f"{_MODEL}/{{version:int}}/report", report, methods=["GET"]),
    Route(f"{_MODEL}/{{version:int}}/promote", promote, methods=["POST"]),
]
