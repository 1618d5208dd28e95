"""Ranks on several hosts, one of which vanishes: they go on with what is left, or it is said."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hosts
import pytest
from disturbed_training import CONFIG, Disturbed
from disturbing_loader import STOP, Disturbance
from processes import command_of
from shards import coloured_samples, write_inputs
from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = replace(CONFIG, epochs=3)
PAUSE = 0.5
"""Before each step: time to pull a cable."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": 34, "val": 5}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


MakeHosts = Callable[..., hosts.Hosts]


@pytest.fixture
def make_hosts(tmp_path: Path) -> Iterator[MakeHosts]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(hosts.ray_hosts(tmp_path, **options))


def start_on(
    host: hosts.Hosts, command: list[str], *, env: dict[str, str], **options: Any
) -> "subprocess.Popen[bytes]":
    return host.start(0, command, variables=env, **options)


def train_and_lose_a_host(
    training: Disturbed, cluster: hosts.Hosts, *, num_ranks: int, min_ranks: int
) -> tuple[int, str]:
    """Train from the first host, kill another one that has a rank; return how it ended."""
    run = training.start(
        executor="ray",
        num_ranks=num_ranks,
        min_ranks=min_ranks,
        start=partial(start_on, cluster),
    )
    assert run.stdout is not None
    said = []
    for line in run.stdout:
        said.append(line)
        if line.startswith("checkpoint step-00000004"):
            break
    else:
        raise AssertionError("".join(said))
    with_ranks = [
        number
        for number in range(1, len(cluster.names))
        if any("RayTrainWorker" in command_of(pid) for pid in cluster.pids(number))
    ]
    cluster.kill(with_ranks[-1])
    rest, _ = run.communicate(timeout=600)
    print("".join(said) + rest)
    return run.returncode, "".join(said) + rest


def test_a_host_that_vanishes_is_replaced_by_one_with_room_and_the_bytes_are_the_same(
    make_hosts: MakeHosts, inputs: Inputs, tmp_path: Path
) -> None:
    steady = Disturbed(tmp_path / "steady", inputs, TINY_MODEL, LONG)
    steady.run()
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL, LONG, PAUSE)
    cluster = make_hosts(num_hosts=3)
    code, said = train_and_lose_a_host(training, cluster, num_ranks=2, min_ranks=0)
    assert code == 0, said
    assert "written by 2 ranks, now 2" in said
    assert training.results() == steady.results()
    assert training.loader().keys_read() == steady.loader().keys_read()


def test_without_room_for_all_it_goes_on_with_as_many_ranks_as_there_is_room_for(
    make_hosts: MakeHosts, inputs: Inputs, tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL, LONG, PAUSE)
    cluster = make_hosts(num_hosts=2, num_cpus=2)
    code, said = train_and_lose_a_host(training, cluster, num_ranks=4, min_ranks=1)
    assert code == 0, said
    found = re.search(r"goes on from step (\d+) \(\S+, written by 4 ranks, now 2\)", said)
    assert found is not None
    same = Disturbed(tmp_path / "same", inputs, TINY_MODEL, LONG)
    same.run([Disturbance(int(found[1]) - 1, 0, STOP)], num_ranks=(4, 2))
    assert training.results() == same.results()
    assert training.loader().keys_read() == same.loader().keys_read()


def test_without_room_for_the_fewest_ranks_it_ends_and_says_so(
    make_hosts: MakeHosts, inputs: Inputs, tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL, LONG, PAUSE)
    cluster = make_hosts(num_hosts=2)
    code, said = train_and_lose_a_host(training, cluster, num_ranks=2, min_ranks=0)
    assert code == 1
    assert "there is room for 1 ranks now and training needs 2" in said
    training.pause = 0.0
    training.run()
    steady = Disturbed(tmp_path / "steady", inputs, TINY_MODEL, LONG)
    steady.run()
    assert training.results() == steady.results()
