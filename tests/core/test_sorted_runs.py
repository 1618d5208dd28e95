from pathlib import Path

import numpy as np
import pytest

from mmcore.core.manifest import Counts, Manifest, verify_artifact
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import FAN_OUT, SortedRuns, indexes
from mmcore.core.step import Artifact

NAME = "things"


class Increments:
    """Shelves of one increment after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[Artifact] = []

    def shelf(self) -> Shelf:
        scratch = self.directory / "scratch"
        scratch.mkdir(exist_ok=True)
        url = str(self.directory / f"artifact-{len(self.made)}")
        earlier = self.made[-1] if self.made else None
        return Shelf(url, "known/0-rule", scratch, earlier=earlier)

    def add(self, values: list[int], *, gone: list[int] | None = None) -> Artifact:
        """Rows are called by their value; table 0 has the value, table 1 its last digit."""
        shelf = self.shelf()
        for index in indexes(shelf):
            index.forget(f"v{value}" for value in gone or [])
        array = np.array(values, np.uint64)
        SortedRuns(shelf, NAME).add(
            (f"v{value}\t{len(self.made)}" for value in values),
            [array.view(np.uint8).reshape(-1, 8)],
            8,
            [array, array % np.uint64(10)],
            2,
        )
        url = str(self.directory / f"artifact-{len(self.made)}")
        manifest = Manifest("step", "", {}, Counts(), tuple(shelf.close()))
        self.made.append(Artifact(url, manifest))
        return self.made[-1]

    def ask(self, table: int, questions: list[int]) -> set[tuple[int, str]]:
        index = SortedRuns(self.shelf(), NAME)
        return {
            (questions[question], run.label(row).split("\t")[0])
            for run in index.runs
            for asked, rows in run.meet(table, np.array(questions, np.uint64))
            for question, row, counts in zip(asked, rows, run.counts(rows), strict=True)
            if counts
        }


@pytest.fixture
def increments(tmp_path: Path) -> Increments:
    return Increments(tmp_path)


def test_what_was_added_is_found_under_every_key_and_nothing_else_is(
    increments: Increments,
) -> None:
    increments.add([12, 7, 32])
    increments.add([7, 45])
    assert increments.ask(0, [7, 12, 8]) == {(7, "v7"), (12, "v12")}
    assert increments.ask(1, [2, 5]) == {(2, "v12"), (2, "v32"), (5, "v45")}


def test_many_increments_lie_in_few_runs_and_are_all_found(increments: Increments) -> None:
    num = FAN_OUT * FAN_OUT + 3
    for value in range(num):
        increments.add([value])
    assert len(SortedRuns(increments.shelf(), NAME).runs) <= 2 * FAN_OUT
    assert increments.ask(0, list(range(num + 5))) == {(v, f"v{v}") for v in range(num)}


def test_a_large_run_is_not_moved_for_small_ones(increments: Increments) -> None:
    first = increments.add(list(range(1000)))
    for value in range(3 * FAN_OUT):
        last = increments.add([5000 + value])
    kept = {file.path: file.sha256 for file in last.manifest.files}
    for file in first.manifest.files:
        assert kept[file.path] == file.sha256
        ones = [Path(artifact.url, file.path).stat().st_ino for artifact in (first, last)]
        assert ones[0] == ones[1]  # a second name for the same bytes
    assert len(increments.ask(0, [3, 5001, 5020])) == 3


def test_nothing_to_add_writes_nothing(increments: Increments) -> None:
    assert increments.add([]).manifest.files == ()


def test_what_is_gone_is_not_found_unless_it_came_back(increments: Increments) -> None:
    increments.add([12, 7, 32])
    increments.add([45], gone=[7, 32])
    assert increments.ask(0, [7, 12, 32, 45]) == {(12, "v12"), (45, "v45")}
    increments.add([7])
    assert increments.ask(1, [2, 7]) == {(2, "v12"), (7, "v7")}
    increments.add([], gone=[7])
    assert increments.ask(0, [7, 12]) == {(12, "v12")}


def test_what_is_gone_leaves_when_runs_merge(increments: Increments) -> None:
    for value in range(FAN_OUT - 1):
        increments.add([value, value + 100])
    increments.add([3, 50, 103], gone=[3, 6, 103, 106, 777])
    shelf = increments.shelf()
    (run,) = SortedRuns(shelf, NAME).runs
    assert run.num_rows == 2 * (FAN_OUT - 1) - 4 + 3
    assert not [name for name in shelf.names if name.startswith("gone/")]
    left = [v for v in (*range(7), *range(100, 107), 50) if v not in (6, 106)]
    assert increments.ask(0, list(range(120))) == {(v, f"v{v}") for v in left}
    assert len(increments.ask(1, [3])) == 2
    assert not run.names_one({"v6", "v1060", "v"})
    assert run.names_one({"v6", "v104"})
    artifact = increments.made[-1]
    assert verify_artifact(artifact.url, artifact.manifest) == []


def test_runs_of_which_nothing_is_left_go_without_a_trace(increments: Increments) -> None:
    for value in range(FAN_OUT - 1):
        increments.add([value])
    increments.add([9], gone=list(range(FAN_OUT)))
    assert increments.ask(0, list(range(20))) == {(9, "v9")}
    for value in range(20, 20 + FAN_OUT):
        increments.add([value], gone=[value - 1, 9])
    assert increments.ask(0, list(range(40))) == {(27, "v27")}


def test_of_many_rows_with_one_value_the_first_that_counts_is_enough(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), "known/0-rule", tmp_path)
    index = SortedRuns(shelf, NAME)
    values = np.array([[7, 7], [7, 7], [8, 8], [7, 7], [7, 9]], np.uint64)
    index.add("abcde", [values.view(np.uint8)], 16, [values[:, 0].copy()], 1)
    asked = np.array([[8, 8], [7, 7]], np.uint64)
    questions = (asked, asked.view(np.uint8).reshape(-1, 16))
    assert sorted(index.find(*questions)) == [(0, "c"), (1, "a"), (1, "b"), (1, "d")]
    assert sorted(index.find(*questions, one_is_enough=True)) == [(0, "c"), (1, "a")]
    index.forget(["a", "c"])
    assert sorted(index.find(*questions, one_is_enough=True)) == [(1, "b")]
    assert sorted(index.find(*questions)) == [(1, "b"), (1, "d")]


def test_who_only_asks_may_leave_out_more(increments: Increments) -> None:
    increments.add([12, 7])
    index = SortedRuns(increments.shelf(), NAME, gone=["v7"])
    (run,) = index.runs
    assert run.counts(np.arange(2)).tolist() == [True, False]


def test_files_of_runs_are_what_their_records_say(increments: Increments) -> None:
    for value in range(FAN_OUT + 1):
        artifact = increments.add([value, value + 100])
        assert artifact.manifest.files
        assert verify_artifact(artifact.url, artifact.manifest) == []


def test_meetings_come_in_portions(increments: Increments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcore.core.sorted_run._MEETINGS_AT_ONCE", 4)
    increments.add(list(range(100)))
    (run,) = SortedRuns(increments.shelf(), NAME).runs
    portions = list(run.meet(1, np.array([1, 2, 3], np.uint64)))
    assert len(portions) > 1
    assert sum(len(rows) for _, rows in portions) == 30


def test_a_shelf_in_a_bucket_reads_as_one_on_a_disk(tmp_path: Path, s3_server: str) -> None:
    import s3fs

    s3fs.S3FileSystem(endpoint_url=s3_server).mkdir("shelves")
    values = np.arange(20_000, dtype=np.uint64).reshape(-1, 2)
    made = []
    for url in ("s3://shelves/one", str(tmp_path / "one")):
        shelf = Shelf(url, "known/0-rule", tmp_path)
        shelf.save("values", values)
        made.append(Artifact(url, Manifest("step", "", {}, Counts(), tuple(shelf.close()))))
    assert made[0].manifest == made[1].manifest
    for earlier in made:
        following = Shelf(f"{earlier.url}-next", "known/0-rule", None, earlier=earlier)
        assert following.names == ["values"]
        assert (following.load("values") == values).all()
        (record,) = following.close()
        assert record == earlier.manifest.files[0]
        manifest = Manifest("step", "", {}, Counts(), (record,))
        assert verify_artifact(f"{earlier.url}-next", manifest) == []
