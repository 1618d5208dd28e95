"""The dashboard's pages with many runs and samples, against a bare keyset query.

    python tests/benchmarks/bench_dashboard.py [--samples 1000000] [--runs 10000] [--rounds 200]

Both answer in one process and one server each (uvicorn on loopback, one worker). One client asks
for every page in turn, and after each for the bare query, so that noise falls on all alike.
`measure()` returns the rows for a table.
"""

import argparse
import http.client
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from figures import REPOSITORY, Row, publish, row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOKEN = "benchmark-benchmark-benchmark"
MAX_RATIO, MAX_MS, MAX_DEEP, MAX_REQUESTS, MAX_KB = 3.0, 10.0, 1.1, 2, 150
_BATCH = 48
_NUM_MODEL_VERSIONS = 12
_NUM_WARM_UP = 10
_STYLES = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
_SCRIPTS = re.compile(r'<script src="([^"]+)">')  # those with defer do not hold up the paint


class Client:
    """One connection that is kept, and as little beside it as can be: the server is measured."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, address: str, **headers: str) -> bytes:
        """Return a body, as it came over the wire."""
        headers = {"authorization": f"Bearer {TOKEN}", **headers}
        self._connection.request("GET", address, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            sys.exit(f"{address} answered {answer.status}: {body[:300]!r}")
        return body

    def seconds(self, address: str) -> float:
        """Return how long an answer took."""
        started = time.perf_counter()
        self.get(address)
        return time.perf_counter() - started

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def build_root(root: Path, *, num_samples: int, num_runs: int) -> None:
    """Write samples, runs and a model, and index them; what is there already is taken as it is."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "support"))
    from many_runs import make_runs
    from many_samples import write_many_samples

    from mmcore.dashboard.index.build import update
    from mmcore.dashboard.index.database import Database
    from mmcore.dashboard.index.runs import RunIndex
    from mmcore.dashboard.index.store import SampleDatabase

    if not list(root.glob("ds/many/*/manifest.json")):
        write_many_samples(root, num_samples=num_samples)
    if not (root / "runs").exists():
        make_runs(root, num_runs)
    if not (root / "mlflow.db").exists():
        _register(root)
    started = time.perf_counter()
    update(str(root), SampleDatabase(str(root / "state")))
    seconds = time.perf_counter() - started
    print(f"{num_samples} samples indexed in {seconds:.1f} s", file=sys.stderr)
    started = time.perf_counter()
    RunIndex(Database(str(root / "state" / "dashboard.sqlite")), str(root)).sync()
    seconds = time.perf_counter() - started
    print(f"{num_runs} runs indexed in {seconds:.1f} s", file=sys.stderr)


def _register(root: Path) -> None:
    """Register versions of a model, each one the champion after the one before."""
    from mmcore.register.ledger import crown
    from mmcore.telemetry.model_registry import ModelRegistry

    registry = ModelRegistry(str(root))
    files = root / "model"
    files.mkdir(parents=True)
    (files / "model.safetensors").write_bytes(b"weights")
    for number in range(_NUM_MODEL_VERSIONS):
        accuracy = 0.8 + number / 100
        made = registry.register(
            "many",
            run_key=f"{number:064d}",
            source_directory=str(files),
            tags={"mm.dataset": "many/0123456789abcdef", "mm.metric.accuracy": repr(accuracy)},
            description="# A model",
            signature=_SIGNATURE,
            metrics={"accuracy": accuracy},
        )
        crown(
            registry, str(root), "many", made.version,
            kind="registered", why=f"accuracy {accuracy:.2f} is better", by="register step",
        )  # fmt: skip


_SIGNATURE = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 8, 8, 3]}],
    "outputs": [{"name": "logits.fused", "dtype": "float32", "shape": [-1, 3]}],
}


def build_bare(path: Path, *, num_samples: int) -> None:
    """Write the table that the bare query reads, unless it is there."""
    if path.exists():
        return
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE sample(id INTEGER PRIMARY KEY, key TEXT, caption TEXT)")
    rows = ((i, f"sample-{i:09d}", f"A caption of sample {i}.") for i in range(num_samples))
    connection.executemany("INSERT INTO sample VALUES (?,?,?)", rows)
    connection.commit()
    connection.close()


def bare_app(path: str) -> Starlette:
    """Return the reference: one keyset query, joined to text, without a page around it."""
    connection = sqlite3.connect(path, check_same_thread=False)

    def page(request: Request) -> Response:
        after = int(request.query_params.get("after", "0"))
        found = connection.execute(
            "SELECT id, key, caption FROM sample WHERE id > ? ORDER BY id LIMIT ?", (after, _BATCH)
        ).fetchall()
        return Response("\n".join(f"{number} {key} {caption}" for number, key, caption in found))

    return Starlette(routes=[Route("/", page)])


def serve(kind: str, where: str, port: int) -> None:
    """Serve one of the two until killed."""
    from mmcore.dashboard.app import create_app
    from mmcore.dashboard.settings import Settings

    app = bare_app(where) if kind == "bare" else create_app(Settings(root=where, token=TOKEN))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


@contextmanager
def running(kind: str, where: Path) -> Iterator[Client]:
    """Yield a client of one of the two in a process of its own."""
    from mmcore.executors.children import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--serve", kind, str(where), str(port)])
    client = Client(port)
    try:
        for _ in range(600):
            with suppress(OSError):
                client.get("/")
                break
            client.close()
            time.sleep(0.1)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def pages_of(root: Path, num_samples: int) -> dict[str, str]:
    """Return the addresses that are measured, by what they are; {} is another number each time."""
    version = next(root.glob("ds/many/*/manifest.json")).parent.name
    dataset = f"/datasets/many/{version}"
    gallery = f"{dataset}/samples"
    run_ids = sorted(path.name for path in (root / "runs").iterdir())
    middle = run_ids[len(run_ids) // 2]
    deep = num_samples // 2
    return {
        "home": "/",
        "runs, first page": "/runs",
        "runs, deep page": f"/runs?before={middle}",
        "runs by status": "/runs?status=failed",
        "runs by recipe and status": "/runs?name=radio&status=cancelled",
        "runs by a frequent word": "/runs?q=memory",
        "runs by a rare word": f"/runs?q={run_ids[20]}",
        "runs by two words": "/runs?q=street+disk",
        "runs by a word that is nowhere": "/runs?q=zebra",
        "a run": f"/runs/{run_ids[-3]}",
        "models": "/models",
        "a model": "/models/many",
        "datasets": "/datasets",
        "a dataset": dataset,
        "trainings": "/training",
        "samples, first page": gallery,
        "samples, deep page": f"{gallery}?after={deep}",
        "samples, a page not seen before": f"{gallery}?after={{}}",
        "samples by split": f"{gallery}?split=val",
        "samples by status": f"{gallery}?status=dropped",
        "samples by reason": f"{gallery}?reason=exact_duplicate",
        "samples by class": f"{gallery}?label=animals",
        "samples by language": f"{gallery}?language=fr",
        "samples beside their twins": f"{gallery}?duplicate=lost",
        "samples by four filters": f"{gallery}?status=kept&split=test&label=plants&language=es",
        "samples by split, deep page": f"{gallery}?split=val&after={deep}",
        "samples by words": f"{gallery}?q=golden+frog",
        "samples by a word and split": f"{gallery}?q=frog&split=test",
        "a sample": f"{gallery}/owl__000000000",
    }


def times_of(
    bare: Client, dashboard: Client, pages: dict[str, str], *, num_samples: int, rounds: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Return the seconds of the bare query and of each page, sorted, without the warm-up."""
    reference: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in pages}
    for number in range(rounds + _NUM_WARM_UP):
        for place, (name, address) in enumerate(pages.items()):
            # a prime, so that no two rounds come to the same page
            at = (number * 7919 * 37 + place) % max(1, num_samples - _BATCH) + 1
            ours = dashboard.seconds(address.format(at))
            theirs = bare.seconds(f"/?after={at}")
            if number >= _NUM_WARM_UP:
                times[name].append(ours)
                reference.append(theirs)
    return sorted(reference), {name: sorted(found) for name, found in times.items()}


def measure(
    directory: Path, *, num_samples: int = 1_000_000, num_runs: int = 10_000, rounds: int = 200
) -> list[Row]:
    """Return how the pages compare; a directory that was measured in before is not built again."""
    root = directory / "root"
    build_root(root, num_samples=num_samples, num_runs=num_runs)
    build_bare(directory / "bare.sqlite", num_samples=num_samples)
    pages = pages_of(root, num_samples)
    with running("dashboard", root) as dashboard:
        _wait_for_models(dashboard)
        with running("bare", directory / "bare.sqlite") as bare:
            reference, times = times_of(
                bare, dashboard, pages, num_samples=num_samples, rounds=rounds
            )
            shown = ("home", "runs, first page", "samples, first page")
            rows = _paint(dashboard, [pages[name] for name in shown])
    base = 1000 * _at(reference, 0.95)
    for name, found in times.items():
        p95 = 1000 * _at(found, 0.95)
        rows.append(
            row(f"{name}: p95 / bare query, ms", p95, base,
                goal=MAX_RATIO, better="lower", value=p95 / base)
        )  # fmt: skip
        rows.append(row(f"{name}: p95, ms", p95, MAX_MS, goal=MAX_MS, better="lower", value=p95))
    for what, deep in (("runs", "runs, deep page"), ("samples", "samples, deep page")):
        ours, first = (1000 * _at(times[name], 0.5) for name in (deep, f"{what}, first page"))
        rows.append(
            row(f"{deep} / first page, medians, ms", ours, first,
                goal=MAX_DEEP, better="lower", value=ours / first)
        )  # fmt: skip
    return rows


def _wait_for_models(dashboard: Client) -> None:
    for _ in range(600):
        if b"/models/many" in dashboard.get("/models"):
            return
        time.sleep(0.1)
    sys.exit("the registry was not opened in a minute")


def _paint(dashboard: Client, addresses: list[str]) -> list[Row]:
    """Return how many requests the first paint of pages waits for, and their KB on the wire."""
    rows = []
    for address in addresses:
        html = dashboard.get(address, **{"accept-encoding": "gzip"})
        head = html.partition(b"<body>")[0].decode()
        waited_for = [*_STYLES.findall(head), *_SCRIPTS.findall(head)]
        sizes = [len(dashboard.get(one, **{"accept-encoding": "gzip"})) for one in waited_for]
        kilobytes = (len(html) + sum(sizes)) / 1000
        name = re.sub("[0-9a-f]{16}", "VERSION", address)
        rows += [
            row(f"first paint of {name}, requests", 1 + len(sizes), MAX_REQUESTS,
                goal=MAX_REQUESTS, better="lower", value=1 + len(sizes)),
            row(f"first paint of {name}, KB", kilobytes, MAX_KB,
                goal=MAX_KB, better="lower", value=kilobytes),
        ]  # fmt: skip
    return rows


def _at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--directory", type=Path, help="kept, and not built again")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "WHERE", "PORT"))
    chosen: Any = parser.parse_args()
    if chosen.serve:
        kind, where, port = chosen.serve
        serve(kind, where, int(port))
        return
    directory = chosen.directory or Path(tempfile.mkdtemp(prefix="mm-bench-dashboard-"))
    try:
        rows = measure(
            directory, num_samples=chosen.samples, num_runs=chosen.runs, rounds=chosen.rounds
        )
        publish(rows, "dashboard")
    finally:
        if chosen.directory is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
