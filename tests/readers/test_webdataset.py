import gc
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import webdataset

# the reader leaves closing its files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let the files go while the warning about them is still expected."""
    yield
    gc.collect()


def hashes_of(samples: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        sample["__key__"]: {
            name: hashlib.sha256(data).hexdigest()
            for name, data in sample.items()
            if not name.startswith("__")
        }
        for sample in samples
    }


def test_list_of_tars_gives_the_same_bytes(dataset: Any) -> None:
    for split, expected in dataset.hashes.items():
        samples = list(webdataset.WebDataset(dataset.tars(split), shardshuffle=False))
        assert len(samples) == len(expected)
        assert hashes_of(samples) == expected


def test_brace_notation_gives_the_same_bytes(dataset: Any) -> None:
    url = f"{dataset.path}/train/train-{{000000..000002}}.tar"
    samples = list(webdataset.WebDataset(url, shardshuffle=False))
    assert hashes_of(samples) == dataset.hashes["train"]


def test_loader_gives_the_same_bytes(dataset: Any) -> None:
    source = webdataset.WebDataset(dataset.tars("train"), shardshuffle=False)
    loader = webdataset.WebLoader(source, num_workers=0, batch_size=None)
    assert hashes_of(loader) == dataset.hashes["train"]


def test_default_decoder_opens_every_part(dataset: Any) -> None:
    source = webdataset.WebDataset(dataset.tars("val"), shardshuffle=False)
    for sample in source.decode("rgb8"):
        assert sample["jpg"].shape[2] == 3
        assert sample["txt"].startswith("a caption")
        assert sample["json"]["split"] == "val"


def test_code_on_the_card_works(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset.path)
    names: dict[str, Any] = {}
    exec(dataset.snippet("import webdataset"), names)
    assert hashes_of(names["samples"]) == dataset.hashes["train"]


def test_samples_that_lack_optional_parts_are_read(sparse: Any) -> None:
    for split, expected in sparse.hashes.items():
        assert hashes_of(webdataset.WebDataset(sparse.tars(split), shardshuffle=False)) == expected
