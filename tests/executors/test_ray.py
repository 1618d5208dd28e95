"""Work on a Ray cluster: the promises of the local executor, and retries of what was killed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import tasks
from hostile_stages import Hostile
from moving_limits import limits, run, spoil, write_corpus
from toy import hashes, toy_graph

from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.executor import Executor, Resources
from mmcore.core.runner import Run
from mmcore.errors import ConfigError, IntegrityError, StepError
from mmcore.executors.local import LocalExecutor

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_nothing_starts_when_there_are_no_items() -> None:
    program = (
        "from mmcore.executors import make_executor\n"
        "executor = make_executor('ray', num_workers=1)\n"
        "assert list(executor.map(abs, [])) == []\n"
        "import ray\n"
        "assert not ray.is_initialized()\n"
        "executor.close()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_item_gives_its_result_once(ray_cluster: Executor) -> None:
    found = list(ray_cluster.map(tasks.double, range(20)))
    assert sorted(found) == [(i, 2 * i) for i in range(20)]


def test_our_errors_keep_their_type(ray_cluster: Executor) -> None:
    with pytest.raises(IntegrityError, match="part-3 holds other bytes") as caught:
        list(ray_cluster.map(tasks.refuse_at_three, range(8)))
    assert type(caught.value) is IntegrityError


def test_an_error_of_a_task_arrives_with_its_message(ray_cluster: Executor) -> None:
    with pytest.raises(StepError, match=r"(?s)a task failed in a worker.*three is too much"):
        list(ray_cluster.map(tasks.fail_at_three, range(8)))


def test_the_task_of_a_killed_worker_is_tried_again(ray_cluster: Executor, tmp_path: Path) -> None:
    markers = [str(tmp_path / f"task{i}") for i in range(2)]
    found = list(ray_cluster.map(tasks.die_once, markers))
    assert sorted(found) == [(0, "task0"), (1, "task1")]


def test_a_hostile_sample_costs_itself_alone_on_a_worker_of_ray_too(
    ray_cluster: Executor, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, word in enumerate(["abort", "fine", "exit", "fine", "bomb", "fine"]):
        (corpus / f"t{number}.txt").write_text(word)
    for name, executor in (("ray", ray_cluster), ("local", LocalExecutor())):
        small = DecoderLimits(memory_mb=256)
        graph = toy_graph(corpus, stage=Hostile(), samples_per_task=3, limits=small)
        run = Run(graph, root=str(tmp_path / name), executor=executor)
        run.run(["clean"])
    counts = run.artifacts["clean"].manifest.counts
    assert counts.quarantined == {"decoder_died": 2, "decoder_memory": 1}
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


def test_a_gpu_that_the_cluster_lacks_is_missed_at_once_and_processors_are_taken_as_they_are(
    ray_cluster: Executor,
) -> None:
    with pytest.raises(ConfigError, match=r"asks for 1 GPU and the cluster has 0"):
        list(ray_cluster.map(tasks.double, [1], resources=Resources(num_gpus=1)))
    many = Resources(num_cpus=64)
    assert list(ray_cluster.map(tasks.double, [4], resources=many)) == [(0, 8)]


def test_a_task_that_kills_every_worker_is_one_clear_error(ray_cluster: Executor) -> None:
    with pytest.raises(StepError, match=r"a worker died 4 times.*finished tasks are kept"):
        list(ray_cluster.map(tasks.die, range(1)))


def test_ranks_reach_each_other_and_the_first_reports(
    ray_cluster: Executor, tmp_path: Path
) -> None:
    reports: list[Any] = []
    config = {"directory": str(tmp_path)}
    ray_cluster.gang(tasks.sum_ranks, config, num_ranks=2, on_report=reports.append)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "0-of-2": "3",
        "1-of-2": "3",
    }
    assert reports == [{"step": 1, "sum": 3.0}, {"step": 2, "sum": 3.0}]


def test_a_rank_that_raises_ends_the_gang_with_its_name_and_message(ray_cluster: Executor) -> None:
    with pytest.raises(StepError, match=r"rank 1: ValueError: loss is not finite at step 7"):
        ray_cluster.gang(tasks.fail_on_rank_one, {}, num_ranks=2, on_report=print)


def test_no_port_of_a_cluster_on_this_machine_is_open_to_others() -> None:
    # in a process of its own: this one may hold what other tests have opened
    program = (
        "import psutil\n"
        "from mmcore.executors import make_executor\n"
        "executor = make_executor('ray', num_workers=1)\n"
        "assert list(executor.map(abs, [-4])) == [(0, 4)]\n"
        "me = psutil.Process()\n"
        "for process in (me, *me.children(recursive=True)):\n"
        "    for one in process.net_connections(kind='inet'):\n"
        "        if one.status == psutil.CONN_LISTEN:\n"
        "            print('listens', one.laddr.ip, process.name())\n"
        "executor.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    listening = [line.split()[1:] for line in done.stdout.splitlines() if "listens" in line]
    assert {"gcs_server", "raylet"} <= {name for _, name in listening}
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_no_process_is_left_after_close(ray_cluster: Executor) -> None:
    """The last test of this module: it ends the cluster of all of them."""
    assert list(ray_cluster.map(tasks.double, [4])) == [(0, 8)]
    of_ray = {pid for pid in processes.children() if "ray" in processes.command_of(pid)}
    assert len(of_ray) >= 2
    ray_cluster.close()
    processes.wait_until(
        lambda: not of_ray & processes.children(), seconds=10, what="all of them are gone"
    )


def test_the_exit_codes_of_the_drivers_own_children_stay_true(ray_cluster: Executor) -> None:
    # Ray's subreaper mode has the driver ignore SIGCHLD: every child then seems to end with 0
    assert len(list(ray_cluster.map(tasks.double, [1, 2]))) == 2
    assert subprocess.run(["false"], check=False).returncode == 1


def test_workers_remember_what_was_measured_before(ray_cluster: Executor, tmp_path: Path) -> None:
    corpus, root = write_corpus(tmp_path / "corpus"), tmp_path / "root"
    wanted = run(corpus, tmp_path / "fresh", limits(side=14))
    run(corpus, root, limits(side=8), executor=ray_cluster)
    # bytes that are loaded are checked: these would fail the step
    spoil(corpus, ".png", ".flac")
    made = run(corpus, root, limits(side=14), executor=ray_cluster)
    assert made.manifest.files == wanted.manifest.files
