import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import ray

# Ray's own use of its own deprecated options
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One core is enough; the store is small because nothing here is large."""
    ray.init(
        num_cpus=1,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_undecoded_parts_are_the_same_bytes(dataset: Any) -> None:
    for split, expected in dataset.hashes.items():
        read = ray.data.read_webdataset(dataset.tars(split), decoder=None)
        found = {
            row["__key__"]: {
                name: hashlib.sha256(data).hexdigest()
                for name, data in row.items()
                if not name.startswith("__")
            }
            for row in read.iter_rows()
        }
        assert found == expected


@pytest.mark.usefixtures("cluster")
def test_default_decoder_opens_every_part(dataset: Any) -> None:
    rows = list(ray.data.read_webdataset(dataset.tars("val")).iter_rows())
    assert {row["__key__"] for row in rows} == set(dataset.hashes["val"])
    for row in rows:
        assert row["txt"].startswith("a caption")
        assert row["json"]["split"] == "val"
        assert row["jpg"].shape[2] == 3


@pytest.mark.usefixtures("cluster")
def test_code_on_the_card_works(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset.path)
    names: dict[str, Any] = {}
    exec(dataset.snippet("import ray"), names)
    assert {row["__key__"] for row in names["samples"].iter_rows()} == set(dataset.hashes["train"])


@pytest.mark.usefixtures("cluster")
def test_samples_that_lack_optional_parts_are_read(sparse: Any) -> None:
    expected = sparse.hashes["train"]
    rows = ray.data.read_webdataset(sparse.tars("train"), decoder=None).take_all()
    assert {row["__key__"] for row in rows} == set(expected)
    for row in rows:
        # what lacks is None, or NaN where Ray has put rows together by pandas
        assert isinstance(row.get("txt"), bytes) == ("txt" in expected[row["__key__"]])
