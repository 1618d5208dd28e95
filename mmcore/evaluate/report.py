"""The report of one evaluation: one HTML file that needs nothing else, and its charts as PNG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mmcore.core.loader import OpenLoader
from mmcore.core.manifest import Manifest
from mmcore.core.step import Artifact, Inputs
from mmcore.evaluate.charts import (
    confusion_png,
    curves_png,
    curves_svg,
    funnel_png,
    read_curves,
)
from mmcore.evaluate.examples import Showcase
from mmcore.evaluate.funnel import funnel, upstream_manifests
from mmcore.evaluate.html import base_style, environment, pretty
from mmcore.evaluate.predictions import Predictions
from mmcore.sample import Json

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_NUM_ANSWERS = {"image": 6, "text": 5, "audio": 4}
_SHOWN_DIRECTIONS = (("text", "image"), ("image", "text"), ("audio", "image"), ("image", "audio"))
_WORDS = {"image": "picture", "text": "caption", "audio": "speech", "fused": "all together"}
_MAX_SLICES = 20
_NUM_MISTAKES = 8


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report is made of."""

    metrics: Mapping[str, Any]
    """What metrics.json holds."""
    predictions: Predictions
    dataset: OpenLoader
    inputs: Inputs
    train_log: bytes
    """The metrics.jsonl of training; empty where there is none."""
    settings: Mapping[str, Json]
    """How the evaluation was set up."""
    seed: int
    num_examples: int


def write_report(report: ReportInputs) -> dict[str, bytes]:
    """Return report.html and its pictures by file name."""
    manifests = _lineage(report.inputs)
    levels = funnel(
        [(name, found.counts) for name, found in upstream_manifests(report.inputs.bases, "shard")]
    )
    curves = read_curves(report.train_log)
    showcase = Showcase(report.predictions, report.dataset, seed=report.seed)
    examples = [
        (
            source,
            target,
            showcase.retrieved(
                source, target, num_queries=report.num_examples, num_answers=_NUM_ANSWERS[target]
            ),
        )
        for source, target in _SHOWN_DIRECTIONS
        if f"{source}_to_{target}" in report.metrics["retrieval"]
    ]
    matrix = np.array(report.metrics["confusion"])
    labels = report.metrics["labels"]
    html = (
        environment()
        .from_string(_TEMPLATE.read_text(encoding="utf-8"))
        .render(
            base_style=base_style(),
            metrics=report.metrics,
            words=_WORDS,
            dataset=describe_dataset(report.inputs["shard"]),
            model=_model(report.inputs["train"]),
            curves=Markup(curves_svg(curves)) if curves.losses or curves.accuracies else "",  # noqa: S704
            confusion=_confusion_rows(matrix, labels),
            slices={name: rows[:_MAX_SLICES] for name, rows in report.metrics["slices"].items()},
            examples=examples,
            mistakes=showcase.mistakes(num=_NUM_MISTAKES),
            levels=levels,
            most=max((level.num_found for level in levels), default=1),
            lineage=[
                (name, found.fingerprint, found.counts, pretty(found.identity.get("work")))
                for name, found in manifests
            ],
            settings=pretty(dict(report.settings)),
        )
    )
    return {
        "report.html": html.encode(),
        "curves.png": curves_png(curves),
        "confusion.png": confusion_png(matrix, labels),
        "funnel.png": funnel_png(levels),
    }


def describe_dataset(shard: Artifact) -> dict[str, Json]:
    """Return name, version, licence and sizes of the dataset that a shard step committed."""
    work = shard.manifest.identity.get("work")
    work = work if isinstance(work, dict) else {}
    return {
        "name": work.get("name") or "dataset",
        "version": shard.manifest.fingerprint[:16],
        "fingerprint": shard.manifest.fingerprint,
        "licence": work.get("licence") or "not stated",
        "num_samples": shard.manifest.facts.get("num_samples") or {},
        "num_shards": shard.manifest.facts.get("num_shards"),
    }


def _lineage(inputs: Inputs) -> list[tuple[str, Manifest]]:
    """Return every step upstream of the evaluation, each after its inputs."""
    steps: dict[str, Manifest] = {}
    for name in sorted(inputs.artifacts):
        steps |= dict(upstream_manifests(inputs.bases, name))
    return list(steps.items())


def _model(train: Artifact) -> dict[str, Json]:
    """Return what the training step says of its model: size, seed, length of training."""
    facts = dict(train.manifest.facts)
    work = train.manifest.identity.get("work")
    settings = work.get("train") if isinstance(work, dict) else None
    seed = settings.get("seed") if isinstance(settings, dict) else facts.get("seed")
    return {
        "fingerprint": train.manifest.fingerprint,
        "num_params": facts.get("num_params"),
        "seed": seed,
        "num_steps": facts.get("steps", facts.get("num_steps")),
        "num_epochs": facts.get("epochs", facts.get("num_epochs")),
    }


def _confusion_rows(matrix: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    return [
        {
            "label": label,
            "cells": [
                {"num": int(num), "percent": round(100 * float(share[row, column]))}
                for column, num in enumerate(matrix[row])
            ],
        }
        for row, label in enumerate(labels)
    ]
