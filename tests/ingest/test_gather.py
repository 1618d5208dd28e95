"""Lists of URLs as a source: what arrived stays, and what failed alone is asked for again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from media import png
from web_server import Answer, WebServer

from mmcore.core.reader import Gathered
from mmcore.core.rows import Row, load_part
from mmcore.core.step import Artifact
from mmcore.errors import IntegrityError
from mmcore.ingest import download
from mmcore.ingest import gather as gathering
from mmcore.ingest.fetchconfig import FetchConfig
from mmcore.ingest.gather import gather_list
from mmcore.ingest.table import Columns, TableLayout
from mmcore.ingest.urllist import UrlListLayout
from mmcore.sample import sha256_hex

Ingest = Callable[..., tuple[Artifact, list[Row]]]
CONFIG = FetchConfig(allow_private=True, num_tries=1, num_scans=3)
NUM = 6  # more than a slice


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(gathering, "_URLS_PER_SLICE", 4)


@pytest.fixture
def urls(server: WebServer) -> list[str]:
    for i in range(NUM):
        server.answers[f"/{i}"] = Answer(png(i))
    return [f"{server.url}/{i}" for i in range(NUM)]


def gather(urls: list[str], store: Path, config: FetchConfig = CONFIG) -> Gathered:
    return gather_list("a.txt", urls, store_url=str(store), config=config, num_workers=1)


def test_what_arrived_is_not_asked_for_again(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    first = gather(urls, tmp_path / "store")
    assert (first.num_fetched, first.failed, first.num_pending) == (NUM, {}, 0)
    assert len(server.take()) == NUM
    assert gather(urls, tmp_path / "store") == first
    assert server.take() == []


def test_what_failed_alone_is_asked_for_again(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    server.answers["/3"] = Answer(status=404)
    server.answers["/5"] = Answer(status=503)
    first = gather(urls, tmp_path / "store")
    assert first.failed == {"url_failed": 1, "url_not_found": 1}
    assert first.num_pending == 2
    server.answers |= {"/3": Answer(png(3)), "/5": Answer(png(5))}
    server.take()
    second = gather(urls, tmp_path / "store")
    assert server.take() == ["/3", "/5"]
    assert (second.num_fetched, second.num_pending) == (NUM, 0)
    assert second.digest != first.digest


def test_however_many_scans_it_took_the_result_is_the_same(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    server.answers["/3"] = Answer(status=404)
    gather(urls, tmp_path / "store")
    server.answers["/3"] = Answer(png(3))
    at_last = gather(urls, tmp_path / "store")
    assert at_last == gather(urls, tmp_path / "at once")


def test_what_fails_again_and_again_is_given_up(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    server.answers["/3"] = Answer(status=404)
    pending = [gather(urls, tmp_path / "store").num_pending for _ in range(4)]
    assert pending == [1, 1, 0, 0]
    assert server.asked.count("/3") == 3


def test_what_another_try_would_not_cure_is_not_tried(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    refused = gather(urls, tmp_path / "store", FetchConfig())
    assert refused.failed == {"url_refused": NUM}
    assert refused.num_pending == 0
    assert server.asked == []
    # but another configuration is another question
    assert gather(urls, tmp_path / "store").num_fetched == NUM


def test_a_list_that_grew_at_its_head_asks_for_what_is_new(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    gather(urls[2:], tmp_path / "store")
    server.take()
    whole = gather(urls, tmp_path / "store")
    assert server.take() == sorted(f"/{i}" for i in range(2))
    assert whole == gather(urls, tmp_path / "at once")


def test_a_url_that_comes_twice_is_asked_for_once_in_a_slice(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    assert gather([urls[0], urls[1], urls[0]], tmp_path / "store").num_fetched == 3
    assert server.take() == ["/0", "/1"]


def test_a_store_that_lost_its_bytes_fetches_them_again(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    first = gather(urls, tmp_path / "store")
    for pack in (tmp_path / "store").rglob("*.bin"):
        pack.unlink()
    assert gather(urls, tmp_path / "store") == first
    assert len(list((tmp_path / "store").rglob("*.bin"))) == 2


def test_a_store_whose_bytes_were_changed_says_so(
    server: WebServer, urls: list[str], tmp_path: Path
) -> None:
    gather(urls[1:], tmp_path / "store")
    for pack in (tmp_path / "store").rglob("*.bin"):
        pack.write_bytes(bytes(pack.stat().st_size))
    with pytest.raises(IntegrityError, match="fetched again"):
        gather(urls, tmp_path / "store")


def test_the_samples_of_a_list_lie_in_the_scan_with_their_hashes(
    server: WebServer, urls: list[str], tmp_path: Path, ingest: Ingest
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("\n".join([*urls, f"{server.url}/gone"]))
    artifact, rows = ingest(tmp_path / "lists", UrlListLayout(fetch=CONFIG))
    assert artifact.manifest.counts.kept == NUM
    assert artifact.manifest.counts.quarantined == {"url_not_found": 1}
    inputs = artifact.manifest.identity["inputs"]
    assert isinstance(inputs, dict)
    scan = Path(artifact.url).parents[1] / "scan" / str(inputs["scan"])[:16]
    for i, row in enumerate(rows[:NUM]):
        ref = row.sample.parts["png"].ref
        assert ref is not None
        assert ref.sha256 == sha256_hex(png(i))
        assert load_part(row.sample.parts["png"], {"scan": str(scan)}) == png(i)
        assert row.sample.meta["url"] == urls[i]


def test_a_column_of_a_table_may_hold_what_is_fetched(
    server: WebServer, urls: list[str], tmp_path: Path, ingest: Ingest
) -> None:
    (tmp_path / "lists").mkdir()
    lines = [f"{i},{url},text {i}" for i, url in enumerate(urls[:3])]
    (tmp_path / "lists" / "a.csv").write_text("\n".join(["id,where,text", *lines, "9,,alone"]))
    columns = Columns(key="id", image="where", caption="text")
    _, rows = ingest(tmp_path / "lists", TableLayout(columns=columns, fetch=CONFIG))
    assert [(row.sample.key, sorted(row.sample.parts)) for row in rows] == [
        ("a-csv__0", ["png", "txt"]),
        ("a-csv__1", ["png", "txt"]),
        ("a-csv__2", ["png", "txt"]),
        ("a-csv__9", ["txt"]),
    ]


def test_a_scan_in_another_root_comes_to_the_same(
    server: WebServer, urls: list[str], tmp_path: Path, ingest: Ingest
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("\n".join(urls))
    one, _ = ingest(tmp_path / "lists", UrlListLayout(fetch=CONFIG), root="one")
    shutil.rmtree(tmp_path / "one" / "state")
    two, _ = ingest(tmp_path / "lists", UrlListLayout(fetch=CONFIG), root="two")
    assert one.manifest == two.manifest
