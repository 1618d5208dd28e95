"""A recipe over texts whose runs take long enough to be stopped, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import processes
import slow_stages

from mmcore.core.runs import list_runs, read_events

SUPPORT = processes.import_path(str(Path(slow_stages.__file__).parent))
RECIPE = """\
name: {name}
source: {{path: {corpus}, samples_per_task: 2, layout: {{use: folder}}}}
clean:
  repair_caption:
  slow: {{use: slow_stages.Slow, seconds: {seconds}}}
split: {{together: [text]}}
encode: {{encode_text: }}
tokenizer: {{vocab_size: 100}}
"""


def write_slow_recipe(
    directory: Path, *, name: str = "slow", num_texts: int = 24, seconds: float = 0.2
) -> Path:
    """Write texts and a recipe whose step `clean` takes `seconds` for each of them."""
    corpus = directory / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i in range(num_texts):
        (corpus / f"t{i:03d}.txt").write_text(f"text number {i} of many")
    file = directory / f"{name}.yaml"
    file.write_text(RECIPE.format(name=name, corpus=corpus, seconds=seconds))
    return file


@dataclass
class Started:
    """`mm run` in a process of its own; all that it starts carries a mark."""

    process: "subprocess.Popen[bytes]"
    root: Path
    mark: str
    stderr: Path

    def record(self) -> dict[str, object]:
        """Return the record of this very run."""
        return next(run for run in list_runs(str(self.root)) if run["pid"] == self.process.pid)

    @property
    def run_id(self) -> str:
        return str(self.record()["run_id"])

    def wait_for(self, kind: str, step: str, *, seconds: float = 120) -> None:
        """Wait until something has happened in the run: `task_finished`, `clean`."""

        def has_happened() -> bool:
            assert self.process.poll() is None, self.said()
            runs = [run for run in list_runs(str(self.root)) if run["pid"] == self.process.pid]
            events = read_events(runs[0]["url"]) if runs else []
            return any((event["kind"], event["step"]) == (kind, step) for event in events)

        processes.wait_until(has_happened, seconds=seconds, what=f"{kind} {step}")

    def finish(self, *, seconds: float = 180) -> int:
        return self.process.wait(timeout=seconds)

    def said(self) -> str:
        return self.stderr.read_text()

    def its_processes(self) -> set[int]:
        return processes.with_text(self.mark)


class Starter:
    """Starts runs, and leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Started] = []

    def run(
        self,
        recipe: Path,
        root: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        command: tuple[str, ...] = ("mmcore", "run"),
    ) -> Started:
        mark = f"MM_TEST_MARK_{os.getpid()}_{len(self.started)}_{self.directory.name}"
        stderr = self.directory / f"stderr-{len(self.started)}.txt"
        arguments = [sys.executable, "-m", *command, str(recipe), "--root", str(root), *options]
        with stderr.open("wb") as file:
            process = subprocess.Popen(
                arguments,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=os.environ | {mark: "1", "PYTHONPATH": SUPPORT} | (environment or {}),
            )
        self.started.append(Started(process, root, mark, stderr))
        return self.started[-1]


@contextmanager
def starting(directory: Path) -> Iterator[Starter]:
    """Yield a starter whose runs are gone when the block ends."""
    starter = Starter(directory)
    try:
        yield starter
    finally:
        for started in starter.started:
            started.process.kill()
            started.process.wait()
            processes.kill(started.its_processes())
