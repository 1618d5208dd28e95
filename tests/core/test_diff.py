"""Two dataset versions compared by their tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from mmcore.core.diff import diff, drift
from mmcore.core.forgotten import record_wish
from mmcore.core.lineage import DatasetVersion
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.step import Artifact

ROW: dict[str, Any] = {"split": "train", "sha256": "a", "label": "cat", "score": 1.0}
SCORES = pa.map_(pa.string(), pa.float64())


def version(root: Path, name: str, **samples: dict[str, Any]) -> DatasetVersion:
    """Write the table of a dataset version as `shard` does."""
    directory = root / "ds" / "pets" / name
    directory.mkdir(parents=True)
    rows = [{**ROW, **more, "key": key} for key, more in samples.items()]
    part = [{"extension": "jpg", "offset": 0, "num_bytes": 1}]
    table = pa.table(
        {
            "key": [row["key"] for row in rows],
            "split": [row["split"] for row in rows],
            "parts": [[{**part[0], "sha256": row["sha256"]}] for row in rows],
            "meta": [
                json.dumps({"label": row["label"], "split": row["split"], "split_group": name})
                for row in rows
            ],
            "scores": pa.array([[("sharpness", row["score"])] for row in rows], SCORES),
        }
    )
    pq.write_table(table, directory / "manifest.parquet")
    manifest = Manifest("shard", name * 8, {}, Counts(), ())
    return DatasetVersion("pets", name, Artifact(str(directory), manifest))


@pytest.fixture
def found(tmp_path: Path) -> Any:
    same = {f"s{i}": {"score": float(i)} for i in range(10)}
    old = version(tmp_path, "aa", **same, gone={}, other={}, moved={}, relabelled={})
    new = version(
        tmp_path,
        "bb",
        **same,
        come={"split": "test", "label": "dog"},
        other={"sha256": "b"},
        moved={"split": "val"},
        relabelled={"label": "dog"},
    )
    return diff(old, new)


def test_samples_are_added_removed_changed_and_moved(found: Any) -> None:
    assert found["added"] == ["come"]
    assert found["removed"] == ["gone"]
    assert found["changed"] == ["other", "relabelled"]
    assert found["moved"] == {"moved": {"from": "train", "to": "val"}}


def test_counts_by_split_add_up(found: Any) -> None:
    by_split = found["by_split"]
    assert by_split["before"] == {"train": 14}
    assert by_split["after"] == {"test": 1, "train": 12, "val": 1}
    assert by_split["added"] == {"test": 1}
    assert by_split["removed"] == {"train": 1}
    assert by_split["changed"] == {"train": 2}


def test_labels_are_counted_on_both_sides(found: Any) -> None:
    assert found["counts"]["label"] == {
        "cat": {"before": 14, "after": 12},
        "dog": {"before": 0, "after": 2},
    }


def test_a_version_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = version(tmp_path, "aa", x={}, y={"score": 2.0})
    found: Any = diff(one, one)
    assert not any(found[kind] for kind in ("added", "removed", "changed", "moved"))
    assert found["scores"]["sharpness"]["ks"] == 0


def test_what_is_to_be_forgotten_is_in_neither_version(tmp_path: Path) -> None:
    old = version(tmp_path, "aa", x={}, y={"score": 100.0})
    new = version(tmp_path, "bb", x={})
    wish: Any = {"by": "a", "why": "b", "versions": (), "models": ()}
    record_wish(str(tmp_path), "pets", samples={"y": ()}, **wish)
    found: Any = diff(old, new)
    assert found["removed"] == []
    assert found["scores"]["sharpness"]["before"]["mean"] == 1.0


def test_drift_is_the_kolmogorov_smirnov_test() -> None:
    noise = np.random.default_rng(1)
    before, after = noise.normal(size=400), noise.normal(0.2, 1.1, size=300)
    found: Any = drift(before, after)
    expected = stats.ks_2samp(before, after, method="asymp")
    assert found["ks"] == pytest.approx(expected.statistic)
    assert found["p_value"] == pytest.approx(expected.pvalue, rel=0.15)
    assert found["after"]["mean"] == pytest.approx(after.mean())
    assert found["before"]["p95"] == pytest.approx(np.quantile(before, 0.95))


def test_a_score_that_one_version_lacks_has_no_drift() -> None:
    found: Any = drift(np.zeros(0), np.ones(3))
    assert found["ks"] is None
    assert found["before"] == {"num": 0}
