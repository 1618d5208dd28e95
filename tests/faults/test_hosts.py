"""Hosts of their own, made of network namespaces: work is spread over them, and one may vanish."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts
import pytest
import toy_driver
from processes import command_of, wait_until
from toy import hashes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
Undisturbed = Any


@pytest.fixture
def three_hosts(tmp_path: Path) -> Iterator[hosts.Hosts]:
    with hosts.ray_hosts(tmp_path, num_hosts=3) as made:
        yield made


def test_a_host_that_vanishes_while_it_works_costs_its_tasks_and_the_bytes_are_the_same(
    three_hosts: hosts.Hosts, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    command = [sys.executable, toy_driver.__file__, str(undisturbed.corpus), str(root), "ray", "3"]
    run = three_hosts.start(0, command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    wait_until(
        lambda: any(command_of(pid).startswith("ray::_apply") for pid in three_hosts.pids(2)),
        seconds=60, what="the third host is at work",
    )  # fmt: skip
    three_hosts.kill(2)
    run.communicate()
    assert run.returncode == 0
    assert hashes(root) == undisturbed.hashes
