"""Figures of operating: orchestration, new data, cancel, the dashboard.

    make bench-operate

Orchestration is compared on one Prefect server of its own, interleaved, the first round dropped.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from bench_dashboard import measure
from figures import REPOSITORY, Row, publish, row

DATA_RECIPE = "configs/recipes/generated_data.yaml"
NUM_STEPS = 8
ROUNDS = 9
NUM_DROPS = 5
IDLE_SECONDS = 2.0
"""Before each flow: the server is still writing down the one before, and answers 503 meanwhile,
which the client tries again two seconds later."""
TEXT_RECIPE = """\
name: texts
source: {{path: {corpus}, samples_per_task: 500, layout: {{use: folder}}}}
clean: {{repair_caption: }}
dedup: {{same: [text]}}
split: {{together: [text]}}
shard: {{samples_per_shard: 2000}}
"""


def counted_app() -> Any:
    """Return Prefect's application, which writes down the path of each call."""
    from prefect.server.api.server import create_app

    app = create_app()

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            with open(os.environ["MM_CALLS"], "a", encoding="utf-8") as calls:
                calls.write(f"{scope['method']} {scope['path']}\n")
        await app(scope, receive, send)

    return counted


class Server:
    """A Prefect server that counts the calls."""

    def __init__(self, directory: Path) -> None:
        from mmcore.executors.children import free_port

        self.log, self.calls = directory / "server.log", directory / "calls"
        self.calls.touch()
        self.url = f"http://127.0.0.1:{(port := free_port())}/api"
        environment = os.environ | {
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_SERVER_UI_ENABLED": "0",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # acts on an event at once and writes it down later: what is looked for here is written
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.1",
            "MM_CALLS": str(self.calls),
        }
        (directory / "prefect").mkdir()
        command = [sys.executable, "-m", "uvicorn", "--factory", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--lifespan", "on", "--log-level", "warning"]
        command += ["--app-dir", str(Path(__file__).parent), "bench_operate:counted_app"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == httpx.codes.OK:
                    return
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"the Prefect server did not start; see {self.log}")
            time.sleep(0.2)

    def num_calls(self) -> Counter[str]:
        """Return how many requests it has answered, by method and path without ids."""
        lines = self.calls.read_text().splitlines()
        return Counter(re.sub(r"[0-9a-f-]{36}", "ID", line) for line in lines)

    def stop(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


@contextlib.contextmanager
def prefect_server() -> Iterator[Server]:
    """Start a server, point this process at it before Prefect is imported, and stop it."""
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Path(scratch))
        os.environ["PREFECT_API_URL"] = server.url
        os.environ["PREFECT_HOME"] = f"{scratch}/client"
        os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
        Path(scratch, "client").mkdir()
        try:
            yield server
        finally:
            server.stop()


def orchestration(server: Server, scratch: str) -> list[Row]:
    """Measure a run that has nothing to do, and how calls grow with the corpus."""
    from prefect import flow, task

    from pipelines import flows

    @task
    async def nothing() -> None:
        """Do nothing."""

    @flow(name="bare")
    async def bare() -> None:
        for _ in range(NUM_STEPS):
            await nothing()

    corpus, root = f"{scratch}/corpus", f"{scratch}/root"
    os.environ["MM_CORPUS"] = corpus
    mm = [sys.executable, "-m", "mmcore"]
    made = [*mm, "corpus", "make", corpus, "--samples", "300"]
    subprocess.run(made, check=True, cwd=REPOSITORY, capture_output=True)
    done = [*mm, "run", DATA_RECIPE, "--root", root]
    subprocess.run(done, check=True, cwd=REPOSITORY, capture_output=True)

    async def ours() -> None:
        await flows.end_to_end(DATA_RECIPE, root=root, executor="local", workers=1)

    times: dict[str, list[float]] = {"ours": [], "bare": []}
    arms: dict[str, Callable[[], Awaitable[None]]] = {"ours": ours, "bare": bare}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            time.sleep(IDLE_SECONDS)
            started = time.perf_counter()
            asyncio.run(arm())  # type: ignore[arg-type]
            times[name].append(time.perf_counter() - started)
    found = {name: median(seconds[1:]) for name, seconds in times.items()}
    few, many = (_calls_of_a_run(server, scratch, number) for number in (60, 6000))
    for name in sorted(few | many):
        if few[name] != many[name]:
            print(f"calls that differ: {name}: {few[name]} and {many[name]}", file=sys.stderr)
    return [
        row("a run of 8 steps with nothing to do / bare flow of 8 tasks, seconds", found["ours"],
            found["bare"], goal=1.25, better="lower", value=found["ours"] / found["bare"]),
        row("API calls of a run, corpus 100 times larger", many.total(), few.total(),
            goal=1.0, better="lower", value=many.total() / few.total()),
    ]  # fmt: skip


def _calls_of_a_run(server: Server, scratch: str, num_samples: int) -> Counter[str]:
    from pipelines import flows

    corpus = Path(scratch, f"texts-{num_samples}")
    corpus.mkdir()
    for i in range(num_samples):
        (corpus / f"{i:05d}.txt").write_text(f"caption number {i}")
    recipe = Path(scratch, f"texts-{num_samples}.yaml")
    recipe.write_text(TEXT_RECIPE.format(corpus=corpus))
    before = server.num_calls()
    flow = flows.prepare_data(str(recipe), root=f"{scratch}/{num_samples}", executor="local")
    asyncio.run(flow)
    return server.num_calls() - before


def new_data(server: Server, scratch: str) -> list[Row]:
    """Measure the time from a complete file in a watched folder to its event, the longest of all."""
    folder = Path(scratch, "dropped")
    folder.mkdir()
    recipe = Path(scratch, "dropped.yaml")
    recipe.write_text(TEXT_RECIPE.format(corpus=folder))
    (folder / "first.txt").write_text("the first")
    command = [sys.executable, "-m", "mmcore", "watch", str(recipe), "--root", f"{scratch}/watched"]
    watch = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: _num_events(server) >= 1, seconds=60)
        waited = []
        for trial in range(NUM_DROPS):
            (folder / f"{trial}.txt").write_text(f"dropped as number {trial}")
            started = time.perf_counter()
            _wait_for(lambda trial=trial: _num_events(server) >= trial + 2, seconds=60)
            waited.append(time.perf_counter() - started)
    finally:
        watch.terminate()
        watch.wait(timeout=30)
    return [row("from a complete file to the event, seconds, longest of 5", max(waited), 5.0,
                goal=5.0, better="lower", value=max(waited))]  # fmt: skip


def _num_events(server: Server) -> int:
    wanted = {"filter": {"event": {"name": ["mm.data.arrived"]}}, "limit": 50}
    answer = httpx.post(f"{server.url}/events/filter", json=wanted, timeout=30)
    return int(answer.json()["total"])


def cancelling(scratch: str) -> list[Row]:
    """Measure the time from a cancel to silence: no process of the run is left."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "support"))
    from processes import with_text

    corpus = f"{scratch}/many"
    make = [sys.executable, "-m", "mmcore", "corpus", "make", corpus, "--samples", "3000"]
    subprocess.run(make, check=True, cwd=REPOSITORY, capture_output=True)
    waited = []
    for trial, executor in enumerate(("local", "ray", "ray")):
        root = f"{scratch}/cancelled-{trial}"
        environment = {**os.environ, "MM_CORPUS": corpus, "MM_ROOT": root}
        mm = [sys.executable, "-m", "mmcore"]
        command = [*mm, "run", DATA_RECIPE, "--executor", executor, "--workers", "2"]
        run = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
        _wait_for(
            lambda root=root: list(Path(root).glob("steps/*/clean/*/_tasks/*.json")), seconds=120
        )
        started = time.perf_counter()
        subprocess.run([*mm, "cancel", "latest"], env=environment, capture_output=True, check=False)
        _wait_for(lambda root=root: not with_text(root), seconds=60)
        waited.append(time.perf_counter() - started)
        run.wait()
    return [row("from cancel to silence, seconds, longest of 3", max(waited), 30.0, goal=30.0,
                better="lower", value=max(waited))]  # fmt: skip


def _wait_for(holds: Callable[[], object], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"waited for {seconds:g} s in vain")
        time.sleep(0.02)


def main() -> None:
    """Measure, print a table, and write build/benchmarks/operate.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000, help="behind the dashboard")
    parser.add_argument("--runs", type=int, default=10_000, help="behind the dashboard")
    parser.add_argument("--directory", help="where the dashboard's samples are kept for next time")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    rows: list[Row] = []
    with prefect_server() as server, tempfile.TemporaryDirectory() as scratch:
        rows += orchestration(server, scratch)
        rows += new_data(server, scratch)
        rows += cancelling(scratch)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(options.directory or scratch)
        rows += measure(directory, num_samples=options.samples, num_runs=options.runs)
    publish(rows, "operate")


if __name__ == "__main__":
    main()
