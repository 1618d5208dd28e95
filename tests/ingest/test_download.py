"""Fetching from a real server on loopback: what arrives, and why what does not."""

from pathlib import Path

import pytest
from media import FLAC, png
from web_server import Answer, WebServer

from mmcore.errors import ConfigError
from mmcore.ingest import download as module
from mmcore.ingest.download import Download, download_all
from mmcore.ingest.fetchconfig import FetchConfig

ALLOWED = FetchConfig(allow_private=True, num_tries=1, max_bytes=50_000)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_SECONDS", 0.001)


def fetch(
    urls: list[str], folder: Path, config: FetchConfig = ALLOWED, *, per_host: int = 4
) -> list[Download]:
    folder.mkdir(exist_ok=True)
    return download_all(urls, str(folder), config, per_host=per_host)


def reason(server: WebServer, folder: Path, path: str, config: FetchConfig = ALLOWED) -> str:
    (only,) = fetch([server.url + path], folder, config)
    return only.reason


def test_what_is_there_arrives_and_is_known_by_its_first_bytes(
    server: WebServer, tmp_path: Path
) -> None:
    server.answers["/a"] = Answer(png(), headers={"Content-Type": "text/html"})
    server.answers["/b"] = Answer(FLAC)
    first, second = fetch([f"{server.url}/a", f"{server.url}/b"], tmp_path)
    assert (first.extension, second.extension) == ("png", "flac")
    assert Path(first.file).read_bytes() == png()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=404), "url_not_found"),
        (Answer(status=410), "url_not_found"),
        (Answer(status=403), "url_forbidden"),
        (Answer(status=451), "url_forbidden"),
        (Answer(status=503), "url_failed"),
        (Answer(status=206), "url_failed"),
        (Answer(b"<html>sorry</html>", headers={"Content-Type": "image/png"}), "url_not_media"),
        (Answer(b""), "url_not_media"),
        (Answer(png() + bytes(60_000)), "url_too_large"),
        (Answer(png() + bytes(60_000), says_length=False), "url_too_large"),
        (Answer(png(), cut=500), "url_failed"),
        (Answer(status=302, headers={"Location": "/it"}), "url_redirects"),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), "url_refused"),
        (Answer(status=302, headers={"Location": "http://[bad"}), "url_refused"),
        (Answer(status=302, headers={"Location": "http://u:p@127.0.0.1/"}), "url_refused"),
    ],
)
def test_what_does_not_arrive_says_why(
    server: WebServer, tmp_path: Path, answer: Answer, said: str
) -> None:
    server.answers["/it"] = answer
    assert reason(server, tmp_path, "/it") == said


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/y",
        "file:///etc/passwd",
        "http://",
        "http://[bad",
        "//x",
        "http://u:p@x/",
        "http://" + "a" * 70 + "\u00e9.x/",
    ],
)
def test_what_is_no_url_to_be_asked_is_refused(tmp_path: Path, url: str) -> None:
    (only,) = fetch([url], tmp_path)
    assert only.reason == "url_refused"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1"]
)
def test_this_machine_is_not_asked_unless_that_is_allowed(
    server: WebServer, tmp_path: Path, host: str
) -> None:
    url = server.url.replace("127.0.0.1", host)
    (only,) = fetch([url], tmp_path, FetchConfig(num_tries=1))
    assert only.reason == "url_refused"
    assert server.asked == []


def test_every_hop_of_a_redirect_is_judged(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first address passes for a public one; the one that it leads to does not
    server.answers["/a"] = Answer(
        status=302, headers={"Location": server.url.replace("127.0.0.1", "127.0.0.2") + "/b"}
    )
    server.answers["/b"] = Answer(png())
    monkeypatch.setattr("mmcore.ingest.addresses.is_public", lambda address: address != "127.0.0.2")
    assert reason(server, tmp_path, "/a", FetchConfig(num_tries=1)) == "url_refused"
    assert server.take() == ["/a"]


def test_redirects_are_followed(server: WebServer, tmp_path: Path) -> None:
    server.answers["/a"] = Answer(status=301, headers={"Location": "b"})
    server.answers["/b"] = Answer(status=307, headers={"Location": f"{server.url}/c?x=%20y"})
    server.answers["/c?x=%20y"] = Answer(png())
    assert reason(server, tmp_path, "/a") == ""


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(
    server: WebServer, tmp_path: Path
) -> None:
    tries: list[int] = []

    def third_time() -> Answer:
        tries.append(1)
        return Answer(png()) if len(tries) == 3 else Answer(status=503)

    server.answers["/busy"] = third_time
    config = FetchConfig(allow_private=True, num_tries=3)
    assert reason(server, tmp_path, "/busy", config) == ""
    assert reason(server, tmp_path, "/gone", config) == "url_not_found"
    assert server.take() == ["/busy"] * 3 + ["/gone"]


def test_a_server_that_is_slow_is_left(server: WebServer, tmp_path: Path) -> None:
    server.answers["/slow"] = Answer(png(), wait_seconds=1.0)
    config = FetchConfig(allow_private=True, num_tries=1, timeout_seconds=0.2)
    assert reason(server, tmp_path, "/slow", config) == "url_timeout"


def test_a_port_on_which_nobody_listens_is_unreachable(tmp_path: Path) -> None:
    (only,) = fetch(["http://127.0.0.1:9/x"], tmp_path)
    assert only.reason == "url_unreachable"


def test_one_host_is_asked_for_few_at_a_time(server: WebServer, tmp_path: Path) -> None:
    for i in range(12):
        server.answers[f"/{i}"] = Answer(png(i), wait_seconds=0.02)
    urls = [f"{server.url}/{i}" for i in range(12)]
    assert not any(one.reason for one in fetch(urls, tmp_path, per_host=2))
    assert server.most_at_once == 2


def test_names_in_any_script_are_sent_as_ascii(server: WebServer, tmp_path: Path) -> None:
    server.answers["/a%20b/%E7%8C%AB.png?q=%C3%A9"] = Answer(png())
    assert reason(server, tmp_path, "/a b/\u732b.png?q=\u00e9") == ""


@pytest.mark.parametrize("fields", [{"per_host": 0}, {"timeout_seconds": 0}, {"max_redirects": -1}])
def test_limits_that_let_nothing_through_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="fetch"):
        FetchConfig(**fields)
