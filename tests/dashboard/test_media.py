"""Bytes of samples over HTTP: checked, typed by a table, never run, and nothing else than samples."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import log_in
from small_dataset import png, run_small, tone, write_clips, write_corpus, write_left_out
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.dashboard.index.build import update
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.sample import sha256_hex


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("small")
    root = directory / "root"
    version = run_small(write_left_out(write_corpus(directory / "corpus")), root)
    update(str(root), SampleDatabase(str(root / "state")))
    return root, version


@pytest.fixture
def ask(small: tuple[Path, str], make_app: Callable[..., Starlette]) -> Callable[..., object]:
    root, version = small
    client = log_in(make_app(root))

    def get(path: str, **headers: str) -> object:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(f"/media/small/{version}/{path}", headers=named)

    return get


def test_a_part_comes_out_of_its_shard_byte_for_byte(ask) -> None:
    answer = ask("birds__sample-007/png")
    assert answer.status_code == 200
    assert answer.content == png(7)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"] == 'inline; filename="birds__sample-007.png"'


def test_a_dropped_sample_comes_from_the_raw_corpus(ask) -> None:
    assert ask("birds__twin-of-1/png").content == png(1)


def test_a_part_can_be_had_as_it_was_found(ask) -> None:
    assert ask("birds__sample-007/wav/original").content == tone(227.0)


def test_what_the_browser_has_is_not_sent_again(ask) -> None:
    etag = f'"{sha256_hex(png(7))}"'
    assert ask("birds__sample-007/png").headers["etag"] == etag
    again = ask("birds__sample-007/png", if_none_match=f'"other", {etag}')
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=4000-", 4000, 4044),
        ("bytes=-44", 4000, 4044),
        ("bytes=10-99999", 10, 4044),
    ],
)
def test_a_range_of_a_sound_is_sent(ask, wanted: str, first: int, end: int) -> None:
    answer = ask("birds__sample-007/wav", range=wanted)
    assert answer.status_code == 206
    assert answer.content == tone(227.0)[first:end]
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/4044"


@pytest.mark.parametrize("wanted", ["bytes=5000-", "bytes=-0", "bytes=20-10"])
def test_a_range_that_is_not_there_is_refused(ask, wanted: str) -> None:
    answer = ask("birds__sample-007/wav", range=wanted)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */4044"


def test_a_drawing_is_text_and_never_a_page(ask) -> None:
    answer = ask("birds__drawing/svg")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"<script>" in answer.content
    assert ask("birds__drawing/svg/thumbnail").status_code == 404


def test_a_broken_picture_is_no_thumbnail(ask, small: tuple[Path, str]) -> None:
    # 60 bytes are small enough to be sent as they are; the browser says that it is broken
    assert ask("birds__broken/png").content == png(903)[:60]


@pytest.mark.parametrize(
    "path",
    [
        "birds__sample-007/exe",
        "birds__nobody/png",
        "birds__sample-007/..%2f..%2fmanifest.json",
        "birds__sample-007/../../manifest.json",
        "..%2fmanifest.json/png",
        "birds__sample-007/%2e%2e",
    ],
)
def test_nothing_but_parts_of_samples_can_be_asked_for(ask, path: str) -> None:
    assert ask(path).status_code in (400, 404)


def test_bytes_that_changed_are_not_sent(
    tmp_path: Path, make_app: Callable[..., Starlette]
) -> None:
    root = tmp_path / "root"
    version = run_small(write_corpus(tmp_path / "corpus"), root)
    update(str(root), SampleDatabase(str(root / "state")))
    client = log_in(make_app(root))
    connection = SampleDatabase(str(root / "state")).read()
    row = connection.execute("SELECT key, parts FROM sample WHERE status='kept'").fetchone()
    _, file, offset, *_ = row["parts"].split()[0].split(":")
    (path,) = connection.execute("SELECT path FROM file WHERE id=?", (file,)).fetchone()
    tar = root / "ds" / "small" / version / path
    data = bytearray(tar.read_bytes())
    data[int(offset) + 20] ^= 1
    tar.chmod(0o644)
    tar.write_bytes(data)
    answer = client.get(f"/media/small/{version}/{row['key']}/png")
    assert answer.status_code == 503
    assert "other bytes than were recorded" in answer.text


def test_nobody_sees_a_picture_without_logging_in(
    small: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, version = small
    client = TestClient(make_app(root), base_url="http://127.0.0.1:8080", follow_redirects=False)
    answer = client.get(f"/media/small/{version}/birds__sample-007/png")
    assert answer.status_code in (303, 401)
    assert png(7) not in answer.content


def test_a_large_picture_becomes_a_small_one(
    tmp_path: Path, make_app: Callable[..., Starlette]
) -> None:
    from mmcore.media.image import decode_image

    corpus = write_corpus(tmp_path / "corpus", num=6)
    (corpus / "birds" / "sample-001.png").write_bytes(png(1, side=700))
    root = tmp_path / "root"
    version = run_small(corpus, root)
    update(str(root), SampleDatabase(str(root / "state")))
    answer = log_in(make_app(root)).get(f"/media/small/{version}/birds__sample-001/png/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    assert decode_image(answer.content).shape == (320, 320, 3)


def test_a_video_is_sent_in_ranges(tmp_path: Path, make_app: Callable[..., Starlette]) -> None:
    root = tmp_path / "root"
    corpus = write_clips(tmp_path / "clips")
    version = run_small(corpus, root, name="clips", has_video=True)
    update(str(root), SampleDatabase(str(root / "state")))
    client = log_in(make_app(root))
    expected = (corpus / "waves" / "clip-2.mp4").read_bytes()
    address = f"/media/clips/{version}/waves__clip-2/mp4"
    answer = client.get(address, headers={"range": "bytes=100-299"})
    assert answer.content == expected[100:300]
    assert client.get(address).headers["content-type"] == "video/mp4"
