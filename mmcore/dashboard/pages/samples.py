"""Samples: a gallery to search and filter, and the whole story of each one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from sqlite3 import Row
from typing import Any
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mmcore.dashboard.addresses import dataset_address, query_of, query_string, wanted_dataset
from mmcore.dashboard.cards import card_of, gallery_of
from mmcore.dashboard.index.datasets import Dataset, facet_counts, list_datasets
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.query import Query
from mmcore.dashboard.index.samples import (
    count_outlived,
    count_samples,
    find_page,
    find_sample,
    neighbours,
)
from mmcore.dashboard.index.story import ROLES, Story, tell
from mmcore.dashboard.index.trainings import trainings_that_saw
from mmcore.dashboard.media import Media, StoredPart, locate, parts_of
from mmcore.dashboard.pages import media
from mmcore.dashboard.templating import render
from mmcore.errors import MmError
from mmcore.media.near.prints import without_prints

PAGE_SIZE = 30
_MAX_OPTIONS = 300
_SELECTS = (
    ("split", "Any split"),
    ("label", "Any class"),
    ("language", "Any language"),
    ("reason", "Any reason"),
    ("duplicate", "Duplicates or not"),
)
DUPLICATE_WORDS = {"lost": "dropped as a duplicate", "survivor": "outlived a duplicate"}


def attach(app: Starlette) -> None:
    """Open the index and the caches that the pages share."""
    settings = app.state.settings
    directory = settings.index_path.rsplit("/", 1)[0]
    app.state.samples = SampleIndex(settings.root, directory)
    app.state.media = Media()
    app.state.closing.append(app.state.samples.close)
    app.state.samples.keep_current()


def newest(request: Request) -> Response:
    """Go to the samples of the newest dataset."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    datasets = list_datasets(index.database)
    if not datasets:
        return render(request, "samples_empty.html", section="samples", title="Samples")
    return RedirectResponse(f"{dataset_address(datasets[0])}/samples", status_code=303)


def gallery(request: Request) -> Response:
    """Show a page of samples by words and filters."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    dataset = wanted_dataset(request)
    query = query_of(request.query_params)
    after, before = (_number(request.query_params.get(name)) for name in ("after", "before"))
    page = find_page(index.database, dataset, query, after=after, before=before, limit=PAGE_SIZE)
    address = f"{dataset_address(dataset)}/samples"
    asked = query_string(query)
    num_found, is_more = count_samples(index.database, dataset, query)
    ids = [row["id"] for row in page.rows]
    values: dict[str, Any] = {
        "dataset": dataset,
        "address": address,
        "query": query,
        "asked": asked,
        "cards": gallery_of(index, dataset, page.rows, asked),
        "num_found": num_found,
        "is_more": is_more,
        "previous": f"{address}?{_with(asked, before=ids[0])}" if ids and page.has_before else "",
        "next": f"{address}?{_with(asked, after=ids[-1])}" if ids and page.has_after else "",
        "first_page": f"{address}?{asked}" if after or before else "",
        "chosen": dict(query.filters),
        "facets": facet_counts(index.database, dataset),
    }
    if request.headers.get("hx-target") == "gallery":
        return render(request, "samples_page.html", **values)
    return render(
        request,
        "samples.html",
        section="samples",
        title="Samples",
        crumbs=[
            ("Datasets", "/datasets"),
            (dataset.name, f"/datasets/{quote(dataset.name)}"),
            (dataset.version[:8], dataset_address(dataset)),
        ],
        selects=[
            (facet, words, _options(facet, values["facets"][facet], dict(query.filters)))
            for facet, words in _SELECTS
        ],
        statuses=_statuses(dataset, values["facets"]["status"], query),
        max_options=_MAX_OPTIONS,
        **values,
    )


def story(request: Request) -> Response:
    """Show everything that is known of one sample."""
    index: SampleIndex = request.app.state.samples
    index.keep_current()
    dataset = wanted_dataset(request)
    key = request.path_params["key"]
    row = find_sample(index.database, dataset, key)
    if row is None:
        if not dataset.is_ready:
            raise HTTPException(404, f"{key} is not indexed yet. Try again in a moment.")
        raise HTTPException(404, f"{dataset.name} has no sample with the key {key}.")
    query = query_of(request.query_params)
    asked = query_string(query)
    card = card_of(index, dataset, row, asked)
    told = tell(index, dataset, row)
    before, after = neighbours(index.database, dataset, query, row["id"])
    samples = f"{dataset_address(dataset)}/samples"
    tail = f"?{asked}" if asked else ""
    return render(
        request,
        "sample.html",
        section="samples",
        title=key,
        crumbs=[
            (dataset.name, f"/datasets/{quote(dataset.name)}"),
            (dataset.version[:8], dataset_address(dataset)),
            ("Samples", samples + tail),
        ],
        dataset=dataset,
        dataset_address=dataset_address(dataset),
        card=card,
        row=row,
        told=told,
        originals=_originals(index, dataset, row, told),
        texts=_texts(request.app.state.media, card.parts),
        scores=sorted((json.loads(row["scores"]) if row["scores"] else {}).items()),
        raw=json.dumps(_raw(row, told), indent=2, ensure_ascii=False, sort_keys=True),
        num_outlived=count_outlived(index.database, dataset, key) if row["status"] == "kept" else 0,
        outlived=f"{samples}?{urlencode({'twin': key})}",
        trainings=trainings_that_saw(index, row["segment"]) if row["status"] == "kept" else [],
        role=ROLES.get(row["split"], ""),
        previous=f"{samples}/{quote(before)}{tail}" if before else "",
        next=f"{samples}/{quote(after)}{tail}" if after else "",
    )


def _originals(index: SampleIndex, dataset: Dataset, row: Row, told: Story) -> list[StoredPart]:
    """Return the parts that were found otherwise than they are stored, and can be shown."""
    if row["status"] != "kept":
        return []
    stored = {part.sha256 for part in parts_of(index, dataset, row["segment"], row["parts"])}
    found = [
        locate(index, dataset, row["segment"], extension, ref)
        for extension, ref in told.source.items()
        if ref.sha256 not in stored
    ]
    return [one for one in found if one.url and one.kind in ("image", "audio", "video")]


def _texts(media: Media, parts: Sequence[StoredPart]) -> list[tuple[str, str]]:
    """Return the text parts to be read in the page, as far as they can be had."""
    texts = []
    for one in parts:
        if one.kind == "text" and one.url and one.num_bytes <= 64 * 1024:
            try:
                texts.append((one.extension, media.read(one).decode("utf-8", "replace")))
            except MmError as error:
                texts.append((one.extension, str(error)))
    return texts


def _raw(row: Row, told: Story) -> dict[str, Any]:
    return {
        "key": row["key"],
        "status": row["status"],
        "meta": without_prints(told.meta),
        "scores": dict(told.scores),
        "parts_at_source": {ext: asdict(ref) for ext, ref in told.source.items()},
    }


def _options(
    facet: str, counts: Mapping[str, int], chosen: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """Return (value, words, how many); what is chosen is among them however rare it is."""
    shown = dict(list(counts.items())[:_MAX_OPTIONS])
    if chosen.get(facet):
        shown.setdefault(chosen[facet], counts.get(chosen[facet], 0))
    words = DUPLICATE_WORDS if facet == "duplicate" else {}
    spelled = str if facet in ("label", "language", "split") else lambda v: v.replace("_", " ")
    return [(value, words.get(value) or spelled(value), num) for value, num in shown.items()]


def _statuses(
    dataset: Dataset, counts: Mapping[str, int], query: Query
) -> list[tuple[str, str, int, str, bool]]:
    """Return (value, words, how many, query string, is chosen) for the row of chips."""
    chosen = dict(query.filters).get("status", "")
    chips = []
    for value, words in (
        ("", "All"),
        ("kept", "Kept"),
        ("dropped", "Dropped"),
        ("quarantined", "Quarantined"),
    ):
        others = tuple((facet, one) for facet, one in query.filters if facet != "status")
        filters = (*others, ("status", value)) if value else others
        asked = query_string(Query(filters, query.words, query.twin))
        num = counts.get(value, 0) if value else dataset.done
        chips.append((value, words, num, asked, value == chosen))
    return chips


def _with(asked: str, **more: Any) -> str:
    return "&".join(piece for piece in (asked, urlencode(more)) if piece)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 16 else 0


_SAMPLE = "/datasets/{name:name}/{version:id}/samples"
routes = [
    Route("/samples", newest, methods=["GET"]),
    Route(_SAMPLE, gallery, methods=["GET"]),
    Route(f"{_SAMPLE}/{{key:name}}", story, methods=["GET"]),
    *media.routes,
]
