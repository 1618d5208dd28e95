"""Pages on samples at a million of them, against a bare keyset query behind the same server.

    python tests/benchmarks/bench_dashboard.py [--samples 1000000] [--rounds 200]

Both answer in one process and one server each (uvicorn on loopback, one worker); the client asks
them in turn, so that noise falls on both. `measure()` returns the rows for a table.
"""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from figures import REPOSITORY, Row, publish, row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOKEN = "benchmark-benchmark-benchmark"
_BATCH = 48


def build_root(root: Path, *, num_samples: int) -> tuple[str, float]:
    """Write the dataset and index it; return its version, and the seconds that indexing took."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "support"))
    from many_samples import write_many_samples

    from mmcore.dashboard.index.build import update
    from mmcore.dashboard.index.store import SampleDatabase

    version = write_many_samples(root, num_samples=num_samples)
    started = time.perf_counter()
    update(str(root), SampleDatabase(str(root / "state")))
    return version, time.perf_counter() - started


def build_bare(path: Path, *, num_samples: int) -> None:
    """Write the table that the bare query reads."""
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
def running(kind: str, where: Path) -> Iterator[httpx.Client]:
    """Yield a client of one of the two in a process of its own."""
    from mmcore.executors.local import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--serve", kind, str(where), str(port)])
    headers = {"authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
    try:
        for _ in range(600):
            try:
                client.get("/")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def pages_of(version: str, num_samples: int) -> dict[str, str]:
    """Return the addresses that are measured, by what they are."""
    gallery = f"/datasets/many/{version}/samples"
    deep = num_samples // 2
    return {
        "first page": gallery,
        "deep page": f"{gallery}?after={deep}",
        "split": f"{gallery}?split=val",
        "status": f"{gallery}?status=dropped",
        "reason": f"{gallery}?reason=exact_duplicate",
        "class": f"{gallery}?label=animals",
        "language": f"{gallery}?language=fr",
        "twin": f"{gallery}?duplicate=lost",
        "four filters": f"{gallery}?status=kept&split=test&label=plants&language=es",
        "deep, filtered": f"{gallery}?split=val&after={deep}",
        "words": f"{gallery}?q=golden+frog",
        "words and filter": f"{gallery}?q=frog&split=test",
        "a sample": f"{gallery}/owl__000000000",
        "the dataset": f"/datasets/many/{version}",
        "datasets": "/datasets",
    }


def times_of(client: httpx.Client, address: str, rounds: int) -> list[float]:
    """Return the seconds of each answer, sorted, the first ones left out."""
    found = []
    for number in range(rounds + 5):
        started = time.perf_counter()
        answer = client.get(address)
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        if number >= 5:
            found.append(seconds)
    return sorted(found)


def measure(directory: Path, *, num_samples: int, rounds: int) -> list[Row]:
    """Return how the pages compare: p95 against the bare query, deep and filtered against first."""
    version, seconds = build_root(directory / "root", num_samples=num_samples)
    print(f"indexed {num_samples} samples in {seconds:.1f} s, {num_samples / seconds:.0f} a second")
    build_bare(directory / "bare.sqlite", num_samples=num_samples)
    p95: dict[str, float] = {}
    medians: dict[str, float] = {}
    with (
        running("bare", directory / "bare.sqlite") as bare,
        running("dashboard", directory / "root") as dashboard,
    ):
        reference: list[float] = []
        for name, address in pages_of(version, num_samples).items():
            reference += times_of(bare, f"/?after={num_samples // 2}", max(20, rounds // 4))
            found = times_of(dashboard, address, rounds)
            p95[name], medians[name] = _at(found, 0.95), _at(found, 0.5)
    base = _at(sorted(reference), 0.95)
    rows = [
        _lower(f"p95 of {name} at {num_samples} samples", p95[name], base, goal=3.0) for name in p95
    ]
    first = medians["first page"]
    rows += [
        _lower("deep page against first", medians["deep page"], first, goal=1.1),
        *(
            _lower(f"{name} against no filter", medians[name], first, goal=3.0)
            for name in ("split", "status", "reason", "class", "language", "twin", "four filters")
        ),
    ]
    slowest = 1000 * max(p95.values())
    rows.append(
        row("p95 of the slowest page, ms", slowest, 10, goal=10, better="lower", value=slowest)
    )
    return rows


def _lower(name: str, ours: float, reference: float, *, goal: float) -> Row:
    """Return a row of milliseconds whose ratio should be low."""
    value = ours / reference
    return row(name, 1000 * ours, 1000 * reference, goal=goal, better="lower", value=value)


def _at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "WHERE", "PORT"))
    chosen: Any = parser.parse_args()
    if chosen.serve:
        kind, where, port = chosen.serve
        serve(kind, where, int(port))
        return
    directory = Path(tempfile.mkdtemp(prefix="mm-bench-dashboard-"))
    try:
        rows = measure(directory, num_samples=chosen.samples, rounds=chosen.rounds)
        publish(rows, "dashboard_samples")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
