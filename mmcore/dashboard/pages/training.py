"""Training: curves over each other, live while they run, and what was different between them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.trainings import (
    Training,
    curves,
    find_training,
    list_trainings,
    unended_trainings,
)
from mmcore.dashboard.templating import render

PER_PAGE = 50
MAX_COMPARED = 6
"""As many as there are colours that can be told apart."""
_TASKS = ("class_", "contrastive_")
"""What the names of the parts of a loss begin with."""
_FIGURES = (
    ("train_loss", "Training loss"),
    ("val_loss", "Validation loss"),
    ("val_accuracy", "Validation accuracy"),
    ("accuracy", "Test accuracy"),
    ("macro_f1", "Test macro F1"),
    ("num_parameters", "Parameters"),
    ("num_train_samples", "Training samples"),
    ("num_steps", "Steps"),
)


@dataclass(frozen=True)
class Line:
    """A row of a comparison: one value per training."""

    name: str
    values: Sequence[str]
    is_same: bool
    best: int | None = None
    """Which training has the best value, where one is better than another."""


def trainings(request: Request) -> Response:
    """List trainings, those that run first."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    before = _before(request.query_params.get("before", ""))
    ended = list_trainings(index, limit=PER_PAGE + 1, before=before)
    older = ""
    if len(ended) > PER_PAGE:
        last, one = ended[PER_PAGE - 1]
        older = f"/training?{urlencode({'before': f'{one.committed_at!r}-{last}'})}"
    open_ones = [] if before else unended_trainings(index.root)
    shown = [*open_ones, *(one for _, one in ended[:PER_PAGE])]
    drawn = [one.at for one in shown if one.state != "stopped"][:4]
    return render(
        request,
        "training.html",
        section="training",
        title="Training",
        trainings=shown,
        drawn=drawn if not before else [],
        is_live=any(one.state == "running" for one in open_ones),
        older=older,
        newer="/training" if before else "",
        when=_when,
        max_compared=MAX_COMPARED,
    )


def training(request: Request) -> Response:
    """Show one training: curves, figures, configuration."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    name, fingerprint = request.path_params["name"], request.path_params["fingerprint"]
    found = find_training(index, name, fingerprint)
    if found is None:
        raise HTTPException(404, f"There is no training {name}/{fingerprint} here, or not yet.")
    return render(
        request,
        "training_one.html",
        section="training",
        title=", ".join(found.models) or f"{name} {fingerprint[:8]}",
        crumbs=[("Training", "/training")],
        training=found,
        drawn=[found.at],
        figures=[(words, _spell(found.figure(key), key)) for key, words in _FIGURES],
        config=sorted(_leaves(found.config or {})),
        when=_when,
    )


def compare(request: Request) -> Response:
    """Show several trainings over each other, and what was different between them."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    asked = list(dict.fromkeys(request.query_params.getlist("run")))
    found = [
        one
        for at in asked[:MAX_COMPARED]
        if (one := find_training(index, *at.partition("/")[::2])) is not None
    ]
    missing = [at for at in asked if at not in {one.at for one in found}]
    return render(
        request,
        "training_compare.html",
        section="training",
        title="Compare trainings",
        crumbs=[("Training", "/training")],
        trainings=found,
        missing=missing,
        drawn=[one.at for one in found],
        figures=[_figure_line(found, key, words) for key, words in _FIGURES],
        config=_config_lines(found),
        max_compared=MAX_COMPARED,
    )


def points(request: Request) -> Response:
    """Return the curves of a training as JSON, for the charts."""
    index: SampleIndex = request.app.state.samples
    name, fingerprint = request.path_params["name"], request.path_params["fingerprint"]
    found = find_training(index, name, fingerprint)
    if found is None:
        raise HTTPException(404, f"there is no training {name}/{fingerprint}")
    label = ", ".join(found.models) or f"{name} {fingerprint[:8]}"
    drawn = curves(index.root, found)
    drawn["now"] = _now(drawn["now"])
    return JSONResponse({"label": label, "at": found.at, **drawn})


def _now(newest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the newest figures as words and values: what a look at a running training is for."""
    tasks = [name for name in newest if name.startswith(_TASKS)]
    lines = [("Loss", newest.get("loss"), "{:.4f}")]
    lines += [(f"Loss of {name.replace('_', ' ')}", newest[name], "{:.4f}") for name in tasks]
    lines += [
        ("Learning rate", newest.get("lr"), "{:.3g}"),
        ("Gradient norm", newest.get("grad_norm"), "{:.3g}"),
        ("Samples per second", newest.get("samples_per_second"), "{:,.1f}"),
        ("Text tokens per second", newest.get("tokens_per_second"), "{:,.0f}"),
        ("Waiting for data", newest.get("data_stall"), "{:.1%}"),
        ("MFU", newest.get("mfu"), "{:.1%}"),
    ]
    found = [(words, form.format(value)) for words, value, form in lines if value is not None]
    for key, words in (("memory_bytes", "Memory"), ("gpu_memory_bytes", "GPU memory")):
        if newest.get(key):
            sizes = ", ".join(f"{size / 2**20:,.0f}" for size in newest[key])
            found.append((f"{words} by rank, MiB", sizes))
    return found


def _figure_line(found: Sequence[Training], key: str, words: str) -> Line:
    values = [one.figure(key) for one in found]
    known = [value for value in values if value is not None]
    best = None
    if len(set(known)) > 1 and ("loss" in key or "accuracy" in key or "f1" in key):
        wanted = min(known) if "loss" in key else max(known)
        best = values.index(wanted)
    return Line(words, [_spell(value, key) for value in values], len(set(known)) <= 1, best)


def _config_lines(found: Sequence[Training]) -> list[Line]:
    """Return every setting with its value in each training, different ones first."""
    settings = [dict(_leaves(one.config or {})) for one in found]
    names = sorted({name for one in settings for name in one})
    lines = []
    for name in names:
        values = [one.get(name, "-") for one in settings]
        lines.append(Line(name, values, len(set(values)) == 1))
    return sorted(lines, key=lambda line: (line.is_same, line.name))


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        pairs = (
            _leaves(inner, f"{path}.{name}" if path else str(name)) for name, inner in value.items()
        )
        return [pair for group in pairs for pair in group]
    return [(path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _spell(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    if key.startswith("num_"):
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{100 * value:.1f}%" if "accuracy" in key or "f1" in key else f"{value:.4f}"


def _when(one: Training) -> str:
    if not one.committed_at:
        return ""
    return datetime.fromtimestamp(one.committed_at, UTC).isoformat(timespec="seconds")


def _before(text: str) -> tuple[float, int] | None:
    seconds, _, number = text.rpartition("-")
    try:
        found = (float(seconds), int(number))
    except ValueError:
        return None
    return found if math.isfinite(found[0]) else None


_ONE = "/{name:name}/{fingerprint:id}"
routes = [
    Route("/training", trainings, methods=["GET"]),
    Route("/training/compare", compare, methods=["GET"]),
    Route(f"/training{_ONE}", training, methods=["GET"]),
    Route(f"/api/training{_ONE}", points, methods=["GET"]),
]
