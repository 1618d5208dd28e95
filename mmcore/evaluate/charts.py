"""The pictures of a report: PNG files, and SVG that follows the colours of the page it is in.

The bytes are a function of the numbers: no date, no version, salted ids.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcore.evaluate.funnel import Level
from mmcore.evaluate.predictions import Array

_STYLE = {
    "svg.hashsalt": "mmcore",
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Palette:
    """The colours of a chart."""

    ink: str
    faint: str
    surface: str
    series: tuple[str, ...]


PAPER = Palette(
    "#1c2430", "#d5dbe3", "#ffffff", ("#2563c9", "#c2410c", "#15803d", "#7c3aed", "#64748b")
)
# stands in for variables of the page, which matplotlib cannot parse
_PAGE = Palette(
    "#010101", "#010102", "#010103", ("#020201", "#020202", "#020203", "#020204", "#020205")
)
_VARIABLES = {
    _PAGE.ink: "var(--ink)",
    _PAGE.faint: "var(--line)",
    _PAGE.surface: "none",
    **{colour: f"var(--series-{i + 1})" for i, colour in enumerate(_PAGE.series)},
}


@dataclass(frozen=True)
class Curves:
    """What a training run wrote as it went, by name: (x, y) pairs."""

    losses: Mapping[str, Sequence[tuple[float, float]]]
    accuracies: Mapping[str, Sequence[tuple[float, float]]]


def read_curves(metrics_jsonl: bytes) -> Curves:
    """Return the curves in a training log: lines of {step, epoch, loss, ...} and {epoch, val_*}.

    Training losses are averaged over each epoch; the x axis is the epoch.
    """
    sums: dict[str, dict[float, list[float]]] = {}
    for line in metrics_jsonl.decode().splitlines():
        values = json.loads(line)
        for name, value in values.items():
            shown = name in ("loss", "val_loss") or (name.startswith("val_") and "accuracy" in name)
            if shown and "epoch" in values and isinstance(value, int | float):
                sums.setdefault(name, {}).setdefault(float(values["epoch"]), []).append(value)
    means = {
        name: [(epoch, sum(found) / len(found)) for epoch, found in sorted(by_epoch.items())]
        for name, by_epoch in sorted(sums.items())
    }
    names = {"loss": "training", "val_loss": "validation"}
    return Curves(
        losses={shown: means[name] for name, shown in names.items() if name in means},
        accuracies={
            _accuracy_name(name): points for name, points in means.items() if "accuracy" in name
        },
    )


def curves_png(curves: Curves) -> bytes:
    """Return loss and accuracy over the epochs."""
    with matplotlib.rc_context(_STYLE):
        return _png(_curves_figure(curves, PAPER))


def curves_svg(curves: Curves) -> str:
    """Return the same as an inline SVG without any address in it."""
    with matplotlib.rc_context(_STYLE):
        figure = _curves_figure(curves, _PAGE)
        out = io.StringIO()
        none = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", metadata=none, transparent=True)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def confusion_png(matrix: Array, labels: Sequence[str]) -> bytes:
    """Return the confusion matrix, shaded by the share of the true class."""
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        side = 2.2 + 0.55 * len(labels)
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for (row, column), num in _cells(matrix):
            colour = "white" if share[row, column] > 0.55 else PAPER.ink
            if num:
                axes.text(column, row, str(num), ha="center", va="center", color=colour)
        return _png(figure)


def funnel_png(levels: Sequence[Level]) -> bytes:
    """Return what was kept at every step, as bars."""
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.4, 1.0 + 0.45 * len(levels)), layout="constrained")
        axes = figure.add_subplot()
        steps = [level.step for level in levels]
        axes.barh(steps, [level.num_found for level in levels], color=PAPER.faint, label="found")
        axes.barh(steps, [level.num_kept for level in levels], color=PAPER.series[0], label="kept")
        for at, level in enumerate(levels):
            axes.text(level.num_found, at, f" {level.num_kept:,}", va="center")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("samples")
        if levels:
            axes.legend(loc="lower right")
        return _png(figure)


def _curves_figure(curves: Curves, palette: Palette) -> Figure:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained", facecolor=palette.surface)
    left, right = figure.subplots(1, 2)
    _lines(left, curves.losses, "loss", palette)
    _lines(right, curves.accuracies, "validation accuracy", palette)
    return figure


def _lines(
    axes: Axes, series: Mapping[str, Sequence[tuple[float, float]]], title: str, palette: Palette
) -> None:
    for at, (name, points) in enumerate(series.items()):
        colour = palette.series[at % len(palette.series)]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, label=name, marker="." if len(points) < 20 else "")
    axes.set_facecolor(palette.surface)
    axes.set_title(title, color=palette.ink, fontsize=10.5, loc="left")
    axes.set_xlabel("epoch", color=palette.ink)
    axes.tick_params(colors=palette.ink, length=0)
    axes.grid(color=palette.faint, linewidth=0.8)
    for spine in axes.spines.values():
        spine.set_color(palette.faint)
    if series:
        axes.legend(labelcolor=palette.ink, fontsize=9)


def _accuracy_name(name: str) -> str:
    """Return the head that a validation accuracy is of: `val_accuracy_image` is `image`."""
    return re.sub(r"val_|_?accuracy_?", "", name).strip("_") or "fused"


def _cells(matrix: Array) -> list[tuple[tuple[int, int], int]]:
    rows, columns = matrix.shape
    return [((i, j), int(matrix[i, j])) for i in range(rows) for j in range(columns)]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    figure.savefig(out, format="png", dpi=140, metadata=metadata)
    return out.getvalue()
