"""How a corpus differs from what it was, before any of its files is opened.

Where a layout says which files can meet in one sample (`Layout.around`), only the surroundings of
what came, changed or vanished are grouped: of all other files nothing but the line of the scan is
compared, column by column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.core.change import Change, compare
from mmcore.core.step import Artifact, fingerprint_of
from mmcore.ingest.corpus import (
    Arrivals,
    arrivals,
    read_file_table,
    read_num_samples,
    source_files,
)
from mmcore.ingest.layout import ContainerLayout, Layout, RawSample, SourceFile

_FILES_AT_ONCE = 4096


@dataclass(frozen=True)
class Difference:
    """What became of the raw samples of a layout between two scans."""

    change: Change
    raws: Mapping[str, RawSample]
    """Those of the later scan that were grouped, by key: all that the change is about."""
    unclaimed: Sequence[tuple[str, str]]
    """Of the files that were grouped, those that are part of no sample: (path, reason)."""
    untouched: pa.Table | None = None
    """The files that were not grouped; None where all were."""


_known: dict[str, Difference] = {}
"""The last one: a run asks three times for the same."""


def difference(layout: Layout, before: Artifact, after: Artifact) -> Difference:
    """Return what became of the raw samples of a layout between two scans.

    A list of URLs has changed when more of them arrived. Where tables name other files, all tables
    have when one of those changed or vanished: which of them names it is not known here.
    """
    asked = fingerprint_of(
        {
            "layout": layout.identity(),
            "scans": [[one.url, one.manifest.fingerprint] for one in (before, after)],
        }
    )
    if asked in _known:
        return _known[asked]
    old, new = read_file_table(before), read_file_table(after)
    around_old, around_new = layout.around(old["path"]), layout.around(new["path"])
    if around_old is None or around_new is None:
        return _of_all(layout, before, after)
    # of nothing that differs there may be no chunk at all
    chunks = [*_unlike(old, new, around_old).chunks, *_unlike(new, old, around_new).chunks]
    touched = pa.chunked_array(chunks, pa.string()).combine_chunks()
    is_new, is_old = (pc.is_in(around, touched) for around in (around_new, around_old))
    had = layout.group(source_files(old.filter(is_old)))
    has = layout.group(source_files(new.filter(is_new)))
    change = compare(
        {raw.key: raw.files for raw in had.samples}, {raw.key: raw.files for raw in has.samples}
    )
    untouched = new.filter(pc.invert(is_new))
    if not change.num_left and _forms_one(layout, untouched):
        change = replace(change, num_left=1)
    found = Difference(change, {raw.key: raw for raw in has.samples}, has.unclaimed, untouched)
    _known.clear()
    _known[asked] = found
    return found


def _unlike(some: pa.Table, others: pa.Table, around: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what the files of a scan lie around that are not in another one as they are here."""
    at = pc.index_in(some["path"], others["path"])
    same = pc.and_(
        pc.equal(some["sha256"], others["sha256"].take(at)),
        pc.equal(some["num_bytes"], others["num_bytes"].take(at)),
    )
    return around.filter(pc.invert(pc.fill_null(same, False)))


def _forms_one(layout: Layout, files: pa.Table) -> bool:
    """Return whether there is a sample at all; most often the first few files tell."""
    start, num = 0, 1
    while start < files.num_rows:
        if layout.group(source_files(files.slice(start, num))).samples:
            return True
        start, num = start + num, min(2 * num, _FILES_AT_ONCE)
    return False


def _of_all(layout: Layout, before: Artifact, after: Artifact) -> Difference:
    old, new = source_files(read_file_table(before)), source_files(read_file_table(after))
    old_raws = layout.group(old).samples
    grouping = layout.group(new)
    change = _change(
        layout, _Scanned(before, old, old_raws), _Scanned(after, new, grouping.samples)
    )
    return Difference(change, {raw.key: raw for raw in grouping.samples}, grouping.unclaimed)


@dataclass(frozen=True)
class _Scanned:
    artifact: Artifact
    files: Sequence[SourceFile]
    raws: Sequence[RawSample]


def _change(layout: Layout, before: _Scanned, after: _Scanned) -> Change:
    had = {raw.key: raw.files for raw in before.raws}
    has = {raw.key: raw.files for raw in after.raws}
    if not isinstance(layout, ContainerLayout):
        return compare(had, has)
    arrived = {
        raw.key: arrivals(before.artifact, after.artifact, raw.original_key)
        for raw in after.raws
        if raw.key in had
    }
    none = (Arrivals(), Arrivals())
    is_lost = layout.names_files and _has_lost(before.files, before.raws, after.files)
    change = compare(
        {key: (files, arrived.get(key, none)[0], False) for key, files in had.items()},
        {key: (files, arrived.get(key, none)[1], is_lost) for key, files in has.items()},
    )
    num_had = _num_samples(before.artifact, before.raws)
    num_has = _num_samples(after.artifact, after.raws)
    reckoned = {key: num_has.get(key, 0) for key in change.added}
    reckoned |= {key: num_had.get(key, 0) for key in change.removed}
    for key in change.changed:
        one, other = arrived[key]
        more = num_has.get(key, 0) - num_had.get(key, 0) + other.num_urls - one.num_urls
        reckoned[key] = max(1, more)
    return replace(change, num_samples=reckoned)


def _has_lost(
    old: Sequence[SourceFile], old_raws: Sequence[RawSample], new: Sequence[SourceFile]
) -> bool:
    """Return whether a file that is no table changed or vanished."""
    tables = {file.path for raw in old_raws for file in raw.files.values()}
    there = {file.path: file.sha256 for file in new}
    return any(there.get(file.path) != file.sha256 for file in old if file.path not in tables)


def _num_samples(scan: Artifact, raws: Sequence[RawSample]) -> Mapping[str, int]:
    counted = read_num_samples(scan)
    return {raw.key: counted.get(raw.original_key, 0) for raw in raws}
