"""Ranks meet at one address, and nothing of theirs listens on another."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import distributed as dist

from mmcore.executors.local import LocalExecutor
from mmcore.sample import Json
from mmcore.train.engines.meeting import interface_towards, join_ranks
from mmcore.train.engines.world import World


def note_what_listens(config: Mapping[str, Any]) -> Json:
    world = World.from_environment()
    join_ranks("gloo", world, patience=timedelta(seconds=60))
    value = torch.tensor([world.rank + 1.0])
    dist.all_reduce(value)
    listening = {
        one.laddr.ip
        for one in psutil.Process().net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    }
    said = f"{value.item():g} {' '.join(sorted(listening))} {os.environ['GLOO_SOCKET_IFNAME']}"
    Path(config["directory"], str(world.rank)).write_text(said)
    dist.barrier()
    dist.destroy_process_group()
    return None


def test_ranks_of_one_machine_listen_on_loopback_alone(tmp_path: Path) -> None:
    config = {"directory": str(tmp_path)}
    LocalExecutor().gang(note_what_listens, config, num_ranks=2, on_report=print)
    said = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert said == {"0": "3 127.0.0.1 lo", "1": "3 127.0.0.1 lo"}


def test_the_interface_is_the_one_towards_the_first_rank() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no such host.") is None


def test_under_torchrun_its_agent_listens_and_no_rank() -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "29400"}
    told = World.from_variables(environment | {"MASTER_ADDR": "10.1.2.3"})
    assert (told.address, told.port, told.serves_store) == ("10.1.2.3", 29400, True)
    told = World.from_variables(environment | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert not told.serves_store
