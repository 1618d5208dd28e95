import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import processes
import pytest
import toy_driver
from slow_recipe import Starter, starting
from toy import Shout, hashes, run_toy, toy_graph, write_corpus

from mmcore.ingest.generate import make_corpus

SUPPORT = processes.import_path(str(Path(toy_driver.__file__).parent))


@dataclass(frozen=True)
class Undisturbed:
    """A corpus, and what a run makes of it that nobody disturbs."""

    corpus: Path
    hashes: dict[str, str]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    directory = tmp_path_factory.mktemp("undisturbed")
    corpus = write_corpus(directory / "corpus")
    run_toy(toy_graph(corpus, stage=Shout(pause=toy_driver.PAUSE)), directory / "root")
    return Undisturbed(corpus, hashes(directory / "root"))


@dataclass
class Driver:
    """A run in a process of its own; all that it starts carries a mark."""

    process: subprocess.Popen[str]
    mark: str

    def wait_for(self, event: str) -> None:
        """Read until something has happened in the run: `task_finished clean`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == event:
                return
        raise AssertionError(f"the run ended before {event}")

    def finish(self) -> int:
        """Wait for the run to end."""
        self.process.communicate()
        return self.process.returncode

    def kill(self) -> None:
        """Kill the driver alone, as `kill -9` would; wait for nobody else."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def its_processes(self) -> set[int]:
        return processes.with_text(self.mark)


Start = Callable[..., Driver]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the toy recipe: start(corpus, root, executor, num_workers=2)."""
    drivers: list[Driver] = []

    def begin(corpus: Path, root: Path, executor: str, num_workers: int = 2) -> Driver:
        mark = f"MM_TEST_MARK_{os.getpid()}_{len(drivers)}_{root.name}"
        command = [
            sys.executable,
            toy_driver.__file__,
            str(corpus),
            str(root),
            executor,
            str(num_workers),
        ]
        environment = os.environ | {mark: "1", "PYTHONPATH": SUPPORT}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        drivers.append(Driver(process, mark))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.kill()
        processes.kill(driver.its_processes())


@pytest.fixture(scope="session")
def training_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe to a registered model, whose training lasts until it is stopped."""
    directory = tmp_path_factory.mktemp("training")
    make_corpus(str(directory / "corpus"), num_samples=120, seed=3)
    base = Path(__file__).parents[2] / "configs/recipes/generated_tiny_cpu.yaml"
    file = directory / "training.yaml"
    file.write_text(
        f"extends: {base}\nname: training\nsource: {{path: {directory / 'corpus'}}}\n"
        "shard: {samples_per_shard: 32}\n"
        "train: {epochs: 2000, global_batch_size: 16}\nregister: {model_name: training}\n"
    )
    return file


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    """Start runs of recipes in processes of their own."""
    with starting(tmp_path) as one:
        yield one
