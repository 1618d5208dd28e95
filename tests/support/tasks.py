"""What workers are made to do in tests: succeed, fail, die, talk to each other."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcore.errors import IntegrityError


def double(number: int) -> int:
    return 2 * number


def process_of(_: int) -> int:
    return os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three is too much")
    return number


def refuse_at_three(number: int) -> int:
    if number == 3:
        raise IntegrityError("part-3 holds other bytes than were recorded")
    return number


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def die_once(marker: str) -> str:
    """The first worker that gets it is killed; the marker tells the second one."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def sum_ranks(config: Mapping[str, Any]) -> None:
    """Add up 1, 2, ... over all ranks; every rank writes the sum, the first reports it."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    value = torch.tensor([rank + 1.0])
    dist.all_reduce(value)
    (Path(config["directory"]) / f"{rank}-of-{os.environ['WORLD_SIZE']}").write_text(
        f"{value.item():g}"
    )
    config["report"]({"step": 1, "sum": value.item()})
    config["report"]({"step": 2, "sum": value.item()})


def fail_on_rank_one(config: Mapping[str, Any]) -> None:
    """Rank 1 raises while rank 0 waits for it."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    if os.environ["RANK"] == "1":
        raise ValueError("loss is not finite at step 7")
    dist.barrier()


def kill_rank_one(config: Mapping[str, Any]) -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)


def freeze_rank_one(config: Mapping[str, Any]) -> None:
    """Rank 1 stands still for ever while rank 0 waits for it."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGSTOP)
    dist.barrier()


def wait_to_be_stopped(config: Mapping[str, Any]) -> None:
    """Work until the run is told to stop; then note that there was time for it."""
    rank = os.environ["RANK"]
    config["should_stop"]()
    config["report"]({"is_ready": True})
    while rank == "0" and not config["should_stop"]():
        time.sleep(0.02)
    while rank != "0" and not (Path(config["directory"]) / "0").exists():
        config["should_stop"]()
        time.sleep(0.02)
    (Path(config["directory"]) / rank).touch()
    config["report"]({"has_ended": True})


def wait_for_the_dead(config: Mapping[str, Any]) -> None:
    """Rank 1 is killed while rank 0 waits for it, and notices first."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    dist.barrier()
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
