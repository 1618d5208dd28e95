import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_server import WebServer, web_server

from mmcore import storage
from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.rows import Row, read_rows
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.step import Artifact, Step
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.answers import KnownAnswers
from mmcore.ingest.fetch import fetch_stamps
from mmcore.ingest.generate import make_corpus
from mmcore.ingest.layout import ContainerLayout, Layout, SourceFile
from mmcore.ingest.work import IngestWork
from mmcore.sample import sha256_hex

Ingest = Callable[..., tuple[Artifact, list[Row]]]


@pytest.fixture
def executor() -> Executor:
    return LocalExecutor(num_workers=1)


@pytest.fixture
def ingest(tmp_path: Path, executor: Executor) -> Ingest:
    """Run scan and ingest over a source; return the artifact and its rows."""

    def run(
        source: Path | str, layout: Layout, *, root: str = "root", samples_per_task: int = 256
    ) -> tuple[Artifact, list[Row]]:
        work = IngestWork(layout=layout, samples_per_task=samples_per_task)
        # what the layout makes of it is what is tested, not how much of it the runner allows
        step = Step("ingest", work, inputs=("scan",), max_quarantined=1.0)
        reader = layout if isinstance(layout, ContainerLayout) else None
        graph = Graph("tiny", Source(str(source), reader=reader), (step,))
        results = Run(graph, root=str(tmp_path / root), executor=executor).run()
        artifact = results["ingest"].artifact
        return artifact, list(read_rows(artifact))

    return run


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as known:
        yield known


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KnownAnswers]:
    folder = tmp_path_factory.mktemp("made") / "corpus"
    return folder, make_corpus(str(folder), num_samples=200, seed=3)


@pytest.fixture(scope="session")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real corpus: MM_TEST_STAMPS names it, or it is fetched once per session."""
    given = os.environ.get("MM_TEST_STAMPS")
    if given:
        return Path(given)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no apt-get to fetch the stamps with, and MM_TEST_STAMPS is not set")
    folder = tmp_path_factory.mktemp("fetched") / "stamps"
    fetch_stamps(str(folder))
    return folder


@pytest.fixture(scope="session")
def stamp_files(stamps: Path) -> list[SourceFile]:
    return [
        SourceFile(file.path, file.num_bytes, sha256_hex((stamps / file.path).read_bytes()))
        for file in storage.list_files(str(stamps))
    ]
