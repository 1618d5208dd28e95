"""Datasets: their versions over time, and what one version is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmcore import storage
from mmcore.core.lineage import SHARD_STEP, find_artifact
from mmcore.dashboard.addresses import dataset_address, wanted_dataset
from mmcore.dashboard.index.datasets import Dataset, facet_counts, list_datasets, losses
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.query import Query
from mmcore.dashboard.index.samples import count_samples
from mmcore.dashboard.index.trainings import Training, trainings_of
from mmcore.dashboard.reports import send_report
from mmcore.dashboard.templating import render
from mmcore.errors import StorageError
from mmcore.recipe.contents import report_url

_MAX_VERSIONS_SHOWN = 8
_MAX_CHART_VERSIONS = 60
_MAX_BARS = 14
_SHARDS_PER_PAGE = 50
_MAX_CARD_BYTES = 256 * 1024


@dataclass(frozen=True)
class Version:
    """A dataset version in a list."""

    dataset: Dataset
    address: str
    committed_at: str
    num_added: int | None
    """Samples more than in the version before it; None for the first one."""
    trainings: Sequence[Training]


@dataclass(frozen=True)
class Loss:
    """A bar of the funnel: samples that a step did not keep for one reason."""

    status: str
    reason: str
    rules: str
    num: int
    address: str


@dataclass(frozen=True)
class Level:
    """A step of the funnel; what it found is what it kept and its losses."""

    step: str
    found: int
    kept: int
    losses: Sequence[Loss]


@dataclass(frozen=True)
class Bar:
    """A value, how many kept samples have it, and where they are shown."""

    value: str
    num: int
    address: str


def datasets(request: Request) -> Response:
    """List every dataset with its newest versions."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    by_name: dict[str, list[Dataset]] = {}
    for dataset in list_datasets(index.database):
        by_name.setdefault(dataset.name, []).append(dataset)
    return render(
        request,
        "datasets.html",
        section="datasets",
        title="Datasets",
        groups=[
            (name, _versions(index, found)[:_MAX_VERSIONS_SHOWN], len(found), _growth(found))
            for name, found in by_name.items()
        ],
    )


def versions(request: Request) -> Response:
    """List all versions of one dataset."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    name = request.path_params["name"]
    found = list_datasets(index.database, name)
    if not found:
        raise HTTPException(404, f"There is no dataset {name} here, or not yet.")
    return render(
        request,
        "dataset_versions.html",
        section="datasets",
        title=name,
        crumbs=[("Datasets", "/datasets")],
        name=name,
        versions=_versions(index, found),
        growth=_growth(found),
    )


def dataset(request: Request) -> Response:
    """Show one dataset version."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    found = wanted_dataset(request)
    address = dataset_address(found)
    shards = _shards(index, found, request.query_params.get("shard", ""))
    return render(
        request,
        "dataset.html",
        section="datasets",
        title=f"{found.name} {found.version[:8]}",
        crumbs=[("Datasets", "/datasets"), (found.name, f"/datasets/{quote(found.name)}")],
        dataset=found,
        address=address,
        committed_at=_time(found.committed_at),
        funnel=_funnel(index, found),
        bars=_bars(index, found),
        shards=shards[:_SHARDS_PER_PAGE],
        more_shards=shards[_SHARDS_PER_PAGE - 1]["path"] if len(shards) > _SHARDS_PER_PAGE else "",
        is_first_shards=not request.query_params.get("shard"),
        increments=_increments(found),
        trainings=trainings_of(index, found.fingerprint),
        card=_card(index, found),
        has_report=_report(index, found) is not None,
    )


def report(request: Request) -> Response:
    """Send the data report of a version, in a sandbox of its own."""
    index: SampleIndex = request.app.state.samples
    found = wanted_dataset(request)
    url = _report(index, found)
    if url is None:
        raise HTTPException(
            404, f"The report is not there. Make it with: mm report {found.name}/{found.version}"
        )
    return send_report(url)


def progress(request: Request) -> Response:
    """Return how far the samples of a dataset version are indexed, for the page that waits."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    return render(request, "indexing.html", dataset=wanted_dataset(request), is_fragment=True)


def _versions(index: SampleIndex, found: Sequence[Dataset]) -> list[Version]:
    """Return the versions of one dataset, newest first, each against the one committed before."""
    older = [*found[1:], None]
    return [
        Version(
            one,
            dataset_address(one),
            _time(one.committed_at),
            one.num_samples - before.num_samples if before else None,
            trainings_of(index, one.fingerprint),
        )
        for one, before in zip(found, older, strict=True)
    ]


def _growth(found: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Return the bars of the growth chart, oldest first, in a space 100 high."""
    shown = list(reversed(found[:_MAX_CHART_VERSIONS]))
    most = max((one.num_samples for one in shown), default=0) or 1
    most_bytes = max((one.num_bytes for one in shown), default=0) or 1
    return [
        {
            "dataset": one,
            "address": dataset_address(one),
            "committed_at": _time(one.committed_at),
            "height": round(100 * one.num_samples / most, 2),
            "bytes_height": round(100 * one.num_bytes / most_bytes, 2),
        }
        for one in shown
    ]


def _funnel(index: SampleIndex, found: Dataset) -> list[Level]:
    rules: dict[tuple[str, str, str], list[str]] = {}
    for row in losses(index.database, found):
        rules.setdefault((row["step"], row["status"], row["reason"]), []).append(row["rule"])
    samples = f"{dataset_address(found)}/samples"
    levels = []
    for level in found.funnel:
        lost = [
            Loss(
                status,
                reason,
                ", ".join(rules.get((level["step"], status, reason), [])),
                num,
                f"{samples}?{urlencode({'status': status, 'reason': reason})}",
            )
            for status in ("dropped", "quarantined")
            for reason, num in level[status].items()
        ]
        lost.sort(key=lambda loss: (-loss.num, loss.reason))
        levels.append(Level(level["step"], level["found"], level["kept"], lost))
    return levels


def _bars(index: SampleIndex, found: Dataset) -> list[tuple[str, list[Bar], int]]:
    """Return (what, its bars by size, how many more there are) of the kept samples."""
    counts = facet_counts(index.database, found)
    samples = f"{dataset_address(found)}/samples"
    groups = []
    for facet, words in (("split", "Splits"), ("label", "Classes"), ("language", "Languages")):
        bars = []
        looked_at = list(counts[facet])[: 4 * _MAX_BARS]
        for value in looked_at:
            filters = ((facet, value), ("status", "kept"))
            num, _ = count_samples(index.database, found, Query(filters))
            if num:
                bars.append(Bar(value, num, f"{samples}?{urlencode(filters)}"))
        bars.sort(key=lambda bar: (-bar.num, bar.value))
        num_more = max(0, len(bars) - _MAX_BARS) + len(counts[facet]) - len(looked_at)
        groups.append((words, bars[:_MAX_BARS], num_more))
    return [group for group in groups if group[1]]


def _increments(found: Dataset) -> list[dict[str, Any]]:
    """Return what each increment added, the first one first."""
    listed: Sequence[Mapping[str, Any]] = found.facts.get("increments") or ()
    rows = []
    total = 0
    for number, one in enumerate(listed, start=1):
        added = sum(one["num_samples"].values())
        total += added
        shards = one.get("num_shards") or {}
        rows.append(
            {
                "number": number,
                "version": one["dataset"],
                "num_samples": one["num_samples"],
                "added": added,
                "total": total,
                "num_shards": sum(shards.values()) if isinstance(shards, Mapping) else shards,
            }
        )
    return rows


def _shards(index: SampleIndex, found: Dataset, after: str) -> list[Any]:
    return (
        index.database.read()
        .execute(
            "SELECT path, num_samples, num_bytes, sha256 FROM shard WHERE dataset=? AND path > ? "
            "ORDER BY path LIMIT ?",
            (found.id, after, _SHARDS_PER_PAGE + 1),
        )
        .fetchall()
    )


def _card(index: SampleIndex, found: Dataset) -> str:
    url = storage.join(index.root, "ds", found.name, found.version, "README.md")
    try:
        return storage.read(url, num_bytes=_MAX_CARD_BYTES).decode("utf-8", "replace")
    except StorageError as error:
        return str(error)


def _report(index: SampleIndex, found: Dataset) -> str | None:
    """Return where the data report of a version lies, if it was made."""
    shard = find_artifact(index.root, found.name, SHARD_STEP, found.version)
    return report_url(found.name, shard) if shard else None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


_VERSION = "/datasets/{name:name}/{version:id}"
routes = [
    Route("/datasets", datasets, methods=["GET"]),
    Route("/datasets/{name:name}", versions, methods=["GET"]),
    Route(_VERSION, dataset, methods=["GET"]),
    Route(f"{_VERSION}/report", report, methods=["GET"]),
    Route(f"{_VERSION}/indexing", progress, methods=["GET"]),
]
