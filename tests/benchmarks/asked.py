"""Processes that measure when they are asked: peers in environments of their own, and ours."""

import json
import os
import subprocess
import sys
from typing import Any

from figures import REPOSITORY

ENVIRONMENTS = REPOSITORY / ".mm" / "peers"
IMG2DATASET = ("img2dataset==1.47.0",)
DAFT = ("daft==0.7.26",)
DEDUPLICATORS = ("rensa==0.5.0", "datasketch==2.0.0", "faiss-cpu==1.15.1", "fastsketchlsh==1.0.1")
TORCH = ("torch==2.13.0", "torchvision==0.28.0", "simplejpeg==1.9.0")
"""Of the loaders, which all want torch: the version that is measured here, and the same decoder."""
LOADERS = {
    "litdata": ("litdata==0.2.76", *TORCH),
    "mosaic": ("mosaicml-streaming==0.13.0", *TORCH),
    "energon": ("megatron-energon==7.4.1", *TORCH),
}
OURS = os.pathsep.join((str(REPOSITORY / "tests" / "benchmarks"), str(REPOSITORY)))
"""Where Python finds these modules, and mmcore."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VIPS_CONCURRENCY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


class NotInstalled(Exception):
    """A peer cannot be had here."""


def environment(name: str, *requirements: str) -> str:
    """Return the Python of a peer's own environment, which is made if it is not there."""
    directory = ENVIRONMENTS / name
    python, done = directory / "bin" / "python", directory / "installed"
    wanted = "\n".join(requirements)
    if done.exists() and done.read_text() == wanted:
        return str(python)
    print(f"  installing {', '.join(requirements)} into {directory}", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
    ):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
            raise NotInstalled(f"{wanted}: {(lines or ['pip failed'])[-1]}")
    done.write_text(wanted)
    return str(python)


class Asked:
    """A process that answers a line of JSON with a line of JSON."""

    def __init__(self, *command: str, cores: frozenset[int] = frozenset(), path: str = "") -> None:
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
            preexec_fn=pin,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **question: Any) -> Any:
        """Return the answer; RuntimeError when the process ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries greet on stdout
                return json.loads(line)
        raise RuntimeError(f"{self._process.args!r:.200} ended with {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def asked_of_us(module: str, *arguments: str, cores: frozenset[int] = frozenset()) -> Asked:
    """Start a module of these benchmarks in a process of its own."""
    return Asked(sys.executable, "-m", module, *arguments, cores=cores, path=OURS)
