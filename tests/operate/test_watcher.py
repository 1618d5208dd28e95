"""Watching, on real folders and a real bucket: every complete file is told of once."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_server import PrefectServer
from processes import wait_until

from mmcore import storage
from mmcore.errors import StorageError
from mmcore.operate.events import DATA_ARRIVED, Arrival, notify_arrival
from mmcore.operate.seen import SeenFiles
from mmcore.operate.watcher import Watch, Watcher, watch_until
from mmcore.telemetry.prefect import PrefectApi, PrefectUnreachable


class Place:
    """A watched folder or prefix, and what was told of it."""

    def __init__(self, url: str, root: Path, *, settle_seconds: float = 0.5) -> None:
        self.url = url
        self.root = root
        self.watch = Watch(url=url, dataset="texts", settle_seconds=settle_seconds)
        self.told: list[Arrival] = []
        self.is_down = False

    def watcher(self) -> Watcher:
        return Watcher(self.watch, SeenFiles(str(self.root), self.url, "texts"), self.emit)

    def emit(self, arrival: Arrival) -> None:
        if self.is_down:
            raise PrefectUnreachable("no Prefect server answers")
        self.told.append(arrival)

    def put(self, name: str, data: bytes = b"data") -> None:
        storage.write(storage.join(self.url, name), data)

    def files_told(self) -> list[int]:
        return [arrival.num_files for arrival in self.told]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "bucket":
        return Place(request.getfixturevalue("bucket"), tmp_path / "root")
    return Place(str(tmp_path / "in"), tmp_path / "root")


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    (tmp_path / "in").mkdir()
    return Place(str(tmp_path / "in"), tmp_path / "root")


def test_a_batch_of_files_is_one_event_once_it_has_settled(place: Place) -> None:
    watcher = place.watcher()
    assert watcher.look(now=0.0) is None
    for i in range(7):
        place.put(f"sub/{i}.txt", b"x" * i)
    assert watcher.look(now=1.0) is None
    arrival = watcher.look(now=1.6)
    assert arrival is not None
    assert (arrival.num_files, arrival.num_bytes) == (7, 21)
    assert arrival.first_keys == ("sub/0.txt", "sub/1.txt", "sub/2.txt", "sub/3.txt", "sub/4.txt")
    assert [watcher.look(now=t) for t in (2.0, 3.0, 9.0)] == [None, None, None]
    assert place.files_told() == [7]


def test_a_restart_neither_repeats_nor_loses(place: Place) -> None:
    place.put("a.txt")
    watcher = place.watcher()
    watcher.look(now=0.0)
    watcher.look(now=1.0)
    place.put("b.txt")
    watcher.look(now=2.0)  # seen, not settled, when the watcher is killed
    again = place.watcher()
    again.look(now=0.0)
    again.look(now=1.0)
    assert [arrival.first_keys for arrival in place.told] == [("a.txt",), ("b.txt",)]


def test_a_file_that_is_written_again_is_told_of_again(place: Place) -> None:
    watcher = place.watcher()
    for round_, data in enumerate((b"one", b"other")):
        place.put("a.txt", data)
        watcher.look(now=10.0 * round_)
        watcher.look(now=10.0 * round_ + 1)
    assert [arrival.num_bytes for arrival in place.told] == [3, 5]


def test_a_file_being_written_is_left_alone_however_long_its_writer_pauses(folder: Place) -> None:
    watcher = folder.watcher()
    with open(f"{folder.url}/slow.bin", "wb") as writer:
        writer.write(b"half")
        writer.flush()
        folder.put("done.txt")
        for now in (0.0, 5.0, 60.0):
            watcher.look(now=now)
        assert [arrival.first_keys for arrival in folder.told] == [("done.txt",)]
        assert watcher.unfinished == ("slow.bin",)
        writer.write(b"whole")
    watcher.look(now=70.0)
    watcher.look(now=71.0)
    assert [arrival.num_bytes for arrival in folder.told] == [4, 9]


def test_temporary_and_hidden_files_are_never_told_of(folder: Place) -> None:
    for name in ("a.part", "b.tmp", ".c.txt", "real.txt"):
        Path(folder.url, name).write_bytes(b"data")
    watcher = folder.watcher()
    watcher.look(now=0.0)
    watcher.look(now=10.0)
    os.rename(f"{folder.url}/a.part", f"{folder.url}/a.png")
    watcher.look(now=11.0)
    watcher.look(now=12.0)
    assert [arrival.first_keys for arrival in folder.told] == [("real.txt",), ("a.png",)]


def test_while_the_server_is_down_the_batch_is_kept_and_told_of_later(
    folder: Place, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = folder.watcher()
    folder.is_down = True
    folder.put("a.txt")
    for now in (0.0, 1.0, 3.0, 8.0):
        assert watcher.look(now=now) is None
    assert caplog.text.count("event_waits") == 1
    folder.put("b.txt")
    watcher.look(now=10.0)
    folder.is_down = False
    watcher.look(now=30.0)
    assert folder.files_told() == [2]


def test_forgotten_state_repeats_an_event_under_the_same_id(folder: Place) -> None:
    folder.put("a.txt")
    for forget in (False, True):
        watcher = folder.watcher()
        if forget:
            for file in (folder.root / "state" / "watch").iterdir():
                file.write_bytes(b"no database" * 100)
        watcher.look(now=0.0)
        watcher.look(now=1.0)
    first, second = folder.told
    assert first.event_id == second.event_id


def test_a_deleted_file_is_forgotten_and_may_come_back(folder: Place) -> None:
    watcher = folder.watcher()
    for begin in (0.0, 10.0):
        folder.put("a.txt")
        watcher.look(now=begin)
        watcher.look(now=begin + 1)
        os.remove(f"{folder.url}/a.txt")
        watcher.look(now=begin + 2)
    assert folder.files_told() == [1, 1]


def test_looking_once_waits_for_what_settles_and_not_for_what_is_written(folder: Place) -> None:
    folder.put("a.txt")
    watcher = folder.watcher()
    with open(f"{folder.url}/slow.bin", "wb") as writer:
        writer.write(b"half")
        writer.flush()
        arrival = watcher.look_until_settled()
    assert arrival is not None
    assert (arrival.first_keys, watcher.unfinished) == (("a.txt",), ("slow.bin",))


def test_a_place_that_cannot_be_listed_is_said_once_and_looked_at_again(
    folder: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    num_looks = 0
    is_told, stop = threading.Event(), threading.Event()
    watcher = folder.watcher()
    look = watcher.look

    def broken_at_first(*, now: float) -> Arrival | None:
        nonlocal num_looks
        num_looks += 1
        if num_looks < 4:
            raise StorageError("the disk is away")
        return look(now=now)

    monkeypatch.setattr(watcher, "look", broken_at_first)
    folder.put("a.txt")
    thread = threading.Thread(
        target=watch_until,
        args=(watcher, stop),
        kwargs={"interval_seconds": 0.1, "on_arrival": lambda _: is_told.set()},
    )
    thread.start()
    assert is_told.wait(30)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert caplog.text.count("the disk is away") == 1


@pytest.fixture
def service(tmp_path: Path, prefect_server: PrefectServer) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m mmcore.operate.watch`, with nothing deployed yet."""
    environment = os.environ | prefect_server.environment()
    command = [sys.executable, "-m", "mmcore.operate.watch", "--root", str(tmp_path / "root")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    yield process
    process.kill()
    process.wait()


def test_the_service_watches_what_is_deployed_while_it_runs_and_ends_by_sigterm(
    tmp_path: Path, service: "subprocess.Popen[bytes]", api: PrefectApi
) -> None:
    from mmcore.operate.deployed import remember_deployed
    from mmcore.operate.deployments import Deployment, DeploymentConfig

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"data")
    config = DeploymentConfig(name="served", recipe="x.yaml", watch={"settle_seconds": 0.2})
    deployment = Deployment(file="x.yaml", config=config, dataset="served", source="in")
    remember_deployed(str(tmp_path / "root"), [deployment], str(tmp_path))

    def told() -> list[list[str]]:
        events = [event["payload"] for event in api.events(DATA_ARRIVED)]
        return [event["first_keys"] for event in events if event["dataset"] == "served"]

    wait_until(lambda: told() == [["a.txt"]], seconds=60, what="the first file is told of")
    (tmp_path / "in" / "b.txt").write_bytes(b"data")
    wait_until(lambda: ["b.txt"] in told(), seconds=60, what="the second file is told of")
    assert len(told()) == 2
    service.terminate()
    assert service.wait(timeout=20) == 0


def test_an_event_reaches_the_server(
    tmp_path: Path, prefect_server: PrefectServer, api: PrefectApi
) -> None:
    connection = prefect_server.connection(tmp_path)
    arrival = Arrival.of_files("sent", "s3://b/p", [storage.FileInfo("k.txt", 7, "v")])
    event_id = notify_arrival(connection, arrival)
    assert event_id == arrival.event_id

    def found() -> list[object]:
        return [event for event in api.events(DATA_ARRIVED) if event["id"] == event_id]

    wait_until(found, seconds=30, what="the event is recorded")
    (event,) = [event for event in api.events(DATA_ARRIVED) if event["id"] == event_id]
    assert event["resource"] == {"prefect.resource.id": "mm.dataset.sent"}
    assert event["payload"] == {
        "dataset": "sent",
        "source": "s3://b/p",
        "num_files": 1,
        "num_bytes": 7,
        "first_keys": ["k.txt"],
    }
