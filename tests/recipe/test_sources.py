"""Recipes over every kind of source: to shards, and on with what is new."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media import png
from tars import make_tar
from web_server import Answer, WebServer, web_server

from mmcore import storage
from mmcore.core.reading import _Asking
from mmcore.core.rows import read_rows
from mmcore.core.runner import Run, StepResult
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.jsonschema import recipe_schema
from mmcore.shard.reader import read_samples

RECIPE = """\
name: many
max_quarantined: 0.9
source:
  path: {path}
  layout: {layout}
clean:
  require_parts: {{required: [image]}}
  decode_image:
split: {{together: ["meta:original_key"], fractions: {{train: 1.0}}}}
encode:
  encode_image: {{side: 16}}
"""
COLUMNS = "{key: id, image: image, caption: text}"
Load = Callable[..., dict[str, StepResult]]


@pytest.fixture
def run(tmp_path: Path) -> Load:
    """Run a recipe over a source to its shards."""

    def load(path: str | Path, layout: str, *, root: str = "root") -> dict[str, StepResult]:
        recipe = tmp_path / "many.yaml"
        recipe.write_text(RECIPE.format(path=path, layout=layout))
        graph = load_recipe(str(recipe)).graph
        return Run(graph, root=str(tmp_path / root), executor=LocalExecutor()).run()

    return load


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as known:
        yield known


def write(place: str, **contents: bytes) -> None:
    place = place.removeprefix("file://")
    for name, data in contents.items():
        storage.write(storage.join(place, name.replace("__", "/").replace("_tar", ".tar")), data)


def a_tar(first: int, num: int = 3) -> bytes:
    members = []
    for i in range(first, first + num):
        members += [(f"{i:03d}.png", png(i)), (f"{i:03d}.txt", f"text {i}".encode())]
    return make_tar(members)


def keys(results: Mapping[str, StepResult]) -> list[str]:
    return sorted(sample.key for sample in read_samples(results["shard"].artifact.url))


def found(results: Mapping[str, StepResult], step: str = "ingest") -> int:
    return results[step].artifact.manifest.counts.found


def test_a_new_tar_is_an_increment_of_its_samples_alone(tmp_path: Path, run: Load) -> None:
    place = str(tmp_path / "tars")
    write(place, a_tar=a_tar(0), b_tar=a_tar(10))
    first = run(place, "{use: webdataset}")
    assert (found(first), len(keys(first))) == (6, 6)
    write(place, c_tar=a_tar(20, 2))
    second = run(place, "{use: webdataset}")
    assert found(second) == 2
    assert set(keys(second)) - set(keys(first)) == {"c__020", "c__021"}


def test_the_plan_says_how_many_samples_a_new_table_adds(tmp_path: Path, run: Load) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, first in (("a", 0), ("b", 10)):
        rows = [{"id": i, "image": png(i), "text": "x"} for i in range(first, first + 4)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        results = run(folder, f"{{use: table, columns: {COLUMNS}}}")
    assert found(results) == 4
    assert len(keys(results)) == 8
    assert results["scan"].artifact.manifest.facts["num_files"] == 2


def test_of_a_tar_that_grew_only_what_is_new_is_taken_in(tmp_path: Path, run: Load) -> None:
    place = str(tmp_path / "tars")
    write(place, a_tar=a_tar(0))
    run(place, "{use: webdataset}")
    write(place, a_tar=a_tar(0, 5))
    second = run(place, "{use: webdataset}")
    assert found(second) == 2
    assert len(keys(second)) == 5
    assert second["shard"].artifact.manifest.facts.get("tombstones") is None


def test_an_unchanged_source_is_not_read_again(tmp_path: Path, run: Load) -> None:
    place = str(tmp_path / "tars")
    write(place, a_tar=a_tar(0))
    run(place, "{use: webdataset}")
    again = run(place, "{use: webdataset}")
    assert all(result.was_cached for result in again.values())


def test_what_arrives_at_last_is_an_increment_and_the_rest_is_not_asked_for(
    tmp_path: Path, run: Load, server: WebServer
) -> None:
    for i in range(4):
        server.answers[f"/{i}"] = Answer(png(i))
    server.answers["/2"] = Answer(status=404)
    lines = [json.dumps({"id": i, "image": f"{server.url}/{i}", "text": "x"}) for i in range(4)]
    write(str(tmp_path / "lists"), **{"a.jsonl": "\n".join(lines).encode()})
    fetch = "{allow_private: true, num_tries: 1}"
    layout = f"{{use: urls, columns: {COLUMNS}, fetch: {fetch}}}"
    first = run(tmp_path / "lists", layout)
    assert first["ingest"].artifact.manifest.counts.quarantined == {"url_not_found": 1}
    server.take()
    # nothing changed but that it was tried once more
    again = run(tmp_path / "lists", layout)
    assert server.take() == ["/2"]
    assert all(result.was_cached for name, result in again.items() if name != "scan")
    server.answers["/2"] = Answer(png(2))
    second = run(tmp_path / "lists", layout)
    assert server.take() == ["/2"]
    assert [row.sample.key for row in read_rows(second["ingest"].artifact)] == ["a-jsonl__2"]
    assert keys(second) == [f"a-jsonl__{i}" for i in range(4)]
    last = run(tmp_path / "lists", layout)
    assert all(result.was_cached for result in last.values())
    assert server.take() == []


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        bucket: str = request.getfixturevalue("bucket")
        return bucket
    return f"file://{tmp_path}/files"


def test_every_kind_of_storage_is_a_source_and_is_read_once(
    place: str, tmp_path: Path, run: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, t__a_tar=a_tar(0), t__b_tar=a_tar(10))
    first = run(place, "{use: webdataset}")
    assert len(keys(first)) == 6
    local = str(tmp_path / "same")
    write(local, t__a_tar=a_tar(0), t__b_tar=a_tar(10))
    same = run(local, "{use: webdataset}", root="other")
    assert same["shard"].artifact.manifest == first["shard"].artifact.manifest
    asked: list[str] = []
    real = _Asking.__init__

    def noted(asking: _Asking, decoder: Any, questions: Any, limits: Any) -> None:
        asked.extend(re.findall(r"\w+\.tar", json.dumps(questions)))
        real(asking, decoder, questions, limits)

    # what is opened is opened in the decoder process, which is told of it
    monkeypatch.setattr(_Asking, "__init__", noted)
    again = run(place, "{use: webdataset}")
    assert all(result.was_cached for result in again.values())
    assert asked == []
    write(place, t__c_tar=a_tar(20, 1))
    third = run(place, "{use: webdataset}")
    assert found(third) == 1
    assert set(asked) == {"c.tar"}


def test_a_folder_in_a_bucket_is_read_like_one_on_a_disk(
    place: str, tmp_path: Path, run: Load
) -> None:
    for where in (place, str(tmp_path / "same")):
        for i in range(3):
            write(where, **{f"birds__{i}.png": png(i), f"birds__caf\u00e9 {i}.png": png(i + 5)})
    layout = "{use: folder, label_from: folder}"
    there = run(place, layout)
    here = run(tmp_path / "same", layout, root="other")
    assert len(keys(there)) == 6
    assert there["shard"].artifact.manifest == here["shard"].artifact.manifest


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("{use: webdatset}", "source.layout.webdatset: no stage of that name. Did you mean 'webdataset'?"),
        ("{use: table}", "source.layout.columns: this key is required"),
        ("{use: table, columns: {imag: x}}", "source.layout.columns.imag: unknown key. Did you mean 'image'?"),
        ("{use: table, columns: {key: x}}", "would hold nothing"),
        ("{use: table, columns: {image: x}, captions: all}", "source.layout.captions"),
        ("{use: urls, fetch: {per_hots: 3}}", "source.layout.fetch.per_hots: unknown key. Did you mean 'per_host'?"),
        ("{use: urls, fetch: {per_host: 0}}", "use 1 or more"),
        ("{use: folder, label_from: foldr}", "label_from"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_layout_is_refused_with_what_was_meant(
    tmp_path: Path, layout: str, said: str
) -> None:
    recipe = tmp_path / "many.yaml"
    recipe.write_text(RECIPE.format(path="corpus", layout=layout))
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(recipe))
    assert said in str(caught.value)


def test_a_source_in_the_memory_of_one_process_is_refused(run: Load) -> None:
    with pytest.raises(ConfigError, match=r"source\.path: .* in the memory of this process"):
        run("memory://corpus", "{use: folder}")


def test_the_schema_knows_every_layout() -> None:
    definitions: Any = recipe_schema()["$defs"]
    options = definitions["SourceSection"]["properties"]["layout"]["anyOf"]
    names = [option["properties"]["use"].get("enum", [""])[0] for option in options]
    assert {"folder", "webdataset", "table", "urls", "stamps"} <= set(names)


def test_politeness_and_waiting_change_no_fingerprint(tmp_path: Path) -> None:
    recipe = tmp_path / "many.yaml"
    recipe.write_text(RECIPE.format(path="corpus", layout="{use: urls}"))

    def identity(*overrides: str) -> Any:
        return load_recipe(str(recipe), overrides=overrides).graph.step("ingest").work.identity()

    assert identity("source.layout.fetch.per_host=1", "source.layout.fetch.timeout_seconds=9") == (
        identity()
    )
    assert identity("source.layout.fetch.max_bytes=5") != identity()
