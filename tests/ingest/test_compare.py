"""What changed between two scans, told from what lies around the files that did."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.core.manifest import Counts, Manifest
from mmcore.core.step import Artifact
from mmcore.ingest.compare import Difference, difference
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import SourceFile
from mmcore.ingest.slices import files_of, in_slices

LAYOUTS = [FolderLayout(), FolderLayout(caption_languages=("fr", "de"), several="each")]
STEMS = ["a", "A", "a-1", "a.b", "a.fr", "B", "x y", "\u00e9", ".hid", "d/a", "D/a", "d.e/a.b.c"]
EXTENSIONS = ["jpg", "JPG", "png", "txt", "fr.txt", "json", "wav", "dat"]


def some_files(seed: int) -> dict[str, SourceFile]:
    known = random.Random(seed)
    names = [f"{stem}.{extension}" for stem in STEMS for extension in EXTENSIONS] + ["README"]
    chosen = known.sample(names, k=known.randrange(1, 60))
    return {name: SourceFile(name, len(name), f"{known.randrange(2)}" * 64) for name in chosen}


def scanned(directory: Path, files: dict[str, SourceFile]) -> Artifact:
    directory.mkdir(parents=True)
    rows = [[one.path, one.num_bytes, one.sha256] for one in files.values()]
    columns = zip(*sorted(rows), strict=True)
    table = pa.table(dict(zip(("path", "num_bytes", "sha256"), map(list, columns), strict=True)))
    pq.write_table(table, directory / "files.parquet")
    return Artifact(str(directory), Manifest("scan", str(directory), {}, Counts(), ()))


def anything_may_meet(layout: FolderLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(layout), "around", lambda *_: None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(30))
def test_what_changed_is_what_grouping_all_files_would_say(
    tmp_path: Path, layout: FolderLayout, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = some_files(seed)
    new = dict(random.Random(seed).sample(sorted(old.items()), k=len(old) * 9 // 10))
    new |= dict(sorted(some_files(seed + 1000).items())[:4]) or old
    before, after = scanned(tmp_path / "one", old), scanned(tmp_path / "other", new)
    narrow = difference(layout, before, after)
    anything_may_meet(layout, monkeypatch)
    (tmp_path / "other").rename(tmp_path / "again")  # under another name, or the answer is known
    whole = difference(layout, before, Artifact(str(tmp_path / "again"), after.manifest))
    assert told(narrow) == told(whole)
    assert bool(narrow.change.num_left) == bool(whole.change.num_left)
    about = {*narrow.change.added, *narrow.change.changed}
    assert {key: narrow.raws[key] for key in about} == {key: whole.raws[key] for key in about}
    assert set(narrow.unclaimed) <= set(whole.unclaimed)


def test_scans_that_found_the_same_do_not_differ(tmp_path: Path) -> None:
    files = some_files(1)
    before, after = scanned(tmp_path / "one", files), scanned(tmp_path / "other", files)
    found = difference(LAYOUTS[0], before, after)
    assert not found.change
    assert found.change.num_left
    assert (found.raws, found.unclaimed) == ({}, [])
    assert found.untouched is not None
    assert found.untouched.num_rows == len(files)


def told(found: Difference) -> Sequence[Any]:
    return found.change.added, found.change.changed, found.change.removed


def test_of_a_large_corpus_only_what_lies_around_a_change_is_grouped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {
        f"{i}.{end}": SourceFile(f"{i}.{end}", 1, "0") for i in range(99) for end in ("jpg", "txt")
    }
    new = {**old, "7.jpg": SourceFile("7.jpg", 1, "1"), "new.jpg": SourceFile("new.jpg", 1, "2")}
    del new["8.txt"]
    grouped: list[str] = []
    group = FolderLayout.group

    def seen(layout: FolderLayout, files: Sequence[SourceFile]) -> Any:
        grouped.extend(file.path for file in files)
        return group(layout, files)

    monkeypatch.setattr(FolderLayout, "group", seen)
    before, after = scanned(tmp_path / "one", old), scanned(tmp_path / "other", new)
    for _ in range(3):  # a run asks as often
        assert told(difference(LAYOUTS[0], before, after)) == (("new",), ("7", "8"), ())
    assert sorted(grouped) == [
        "7.jpg",
        "7.jpg",
        "7.txt",
        "7.txt",
        "8.jpg",
        "8.jpg",
        "8.txt",
        "new.jpg",
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_together", [1, 3])
def test_slices_of_a_corpus_form_the_samples_of_the_whole(
    layout: FolderLayout, num_together: int
) -> None:
    files = list(some_files(5).values())
    table = pa.table(
        {name: [getattr(one, name) for one in files] for name in ("path", "num_bytes", "sha256")}
    )
    tasks = in_slices(table, layout.around(table["path"]), num_together)
    groupings = [layout.group(files_of(task.payload)) for task in tasks]
    whole = layout.group(files)
    assert sorted(raw.key for one in groupings for raw in one.samples) == sorted(
        raw.key for raw in whole.samples
    )
    found = {raw.original_key: raw for one in groupings for raw in one.samples}
    assert found == {raw.original_key: raw for raw in whole.samples}
    assert sorted(left for one in groupings for left in one.unclaimed) == whole.unclaimed
    assert [task.name for task in tasks] == [f"part-{i:06d}" for i in range(len(tasks))]
