"""Versions are compared sample by sample, whatever shards they lie in."""

import shutil
from pathlib import Path

import pytest
from small_dataset import NUM_KEPT, run_small, write_corpus

from mmcore.core.diff import diff
from mmcore.core.lineage import DatasetVersion, find_dataset
from mmcore.evaluate.data.compare import Drift, compare
from mmcore.evaluate.data.contents import read_contents, shards_of_both

NUM_OTHERS = 5


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetVersion, DatasetVersion]:
    """Two datasets that know nothing of each other, with samples of the same names."""
    directory = tmp_path_factory.mktemp("two")
    one = write_corpus(directory / "one")
    other = Path(shutil.copytree(one, directory / "other"))
    for file in sorted(other.rglob("*.txt"))[:NUM_OTHERS]:
        file.write_text("Something else.")
    made = []
    for name, corpus in (("one", one), ("other", other)):
        run_small(corpus, directory / name / "root", name=name)
        made.append(find_dataset(str(directory / name / "root"), name))
    return made[0], made[1]


def compared(before: DatasetVersion, after: DatasetVersion) -> Drift:
    shared = shards_of_both(before, after)
    return compare(read_contents(before, shared=shared), read_contents(after, shared=shared))


def test_shards_of_the_same_name_are_not_taken_for_the_same(
    two: tuple[DatasetVersion, DatasetVersion],
) -> None:
    drift, expected = compared(*two), diff(*two)
    assert drift.num_changed == len(expected["changed"]) == NUM_OTHERS  # type: ignore[arg-type]
    assert (drift.num_added, drift.num_removed, drift.num_moved) == (0, 0, 0)
    assert all(one.shift.ks == 0 for one in drift.scores)


def test_a_version_does_not_differ_from_itself(
    two: tuple[DatasetVersion, DatasetVersion],
) -> None:
    version, _ = two
    assert shards_of_both(version, version)
    drift = compared(version, version)
    assert (drift.num_before, drift.num_after) == (NUM_KEPT, NUM_KEPT)
    assert (drift.num_added, drift.num_removed, drift.num_changed, drift.num_moved) == (0, 0, 0, 0)
    assert all(abs(one.shift.psi) < 1e-12 for one in drift.scores)
