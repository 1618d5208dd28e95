"""How a corpus differs from what it was, before any of its files is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmcore.core.change import Change, compare
from mmcore.core.step import Artifact
from mmcore.ingest.corpus import Arrivals, arrivals, read_files, read_num_samples
from mmcore.ingest.layout import ContainerLayout, Layout, RawSample, SourceFile


def change_between(
    layout: Layout,
    before: Artifact,
    after: Artifact,
    *,
    new_raws: Sequence[RawSample] | None = None,
) -> Change:
    """Return what became of the raw samples of a layout between two scans.

    `new_raws` are those of the later one, where they are known already.

    A list of URLs has changed when more of them arrived. Where tables name other files, all tables
    have when one of those changed or vanished: which of them names it is not known here.
    """
    old = read_files(before)
    old_raws = layout.group(old).samples
    if new_raws is None:
        new_raws = layout.group(read_files(after)).samples
    had = {raw.key: raw.files for raw in old_raws}
    has = {raw.key: raw.files for raw in new_raws}
    if not isinstance(layout, ContainerLayout):
        return compare(had, has)
    arrived = {
        raw.key: arrivals(before, after, raw.original_key) for raw in new_raws if raw.key in had
    }
    none = (Arrivals(), Arrivals())
    is_lost = layout.names_files and _has_lost(old, old_raws, read_files(after))
    change = compare(
        {key: (files, arrived.get(key, none)[0], False) for key, files in had.items()},
        {key: (files, arrived.get(key, none)[1], is_lost) for key, files in has.items()},
    )
    num_had = _num_samples(before, old_raws)
    num_has = _num_samples(after, new_raws)
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
