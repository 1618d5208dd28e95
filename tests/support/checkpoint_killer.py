"""Writes a third checkpoint in children that strace kills at their N-th call of a kind.

Run as a program, so that torch is loaded once for all of them: `checkpoint_killer.py CALL DIRECTORY
RANK NUM_RANKS` prints the directories of those that were killed, until one of them has come to its
end. The children are that rank; the others write their part in this process, which is not killed.
"""

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from checkpoint_writers import state_of, store_in, write_steps, writers

from mmcore.errors import StorageError
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.writer import CheckpointWriter, SharedState

FAMILY = {
    "write": "write,pwrite64,writev",
    "rename": "rename,renameat,renameat2",
    "link": "link,linkat",
    "unlink": "unlink,unlinkat",
}


def is_killed(directory: Path, call: str, number: int, rank: int, num_ranks: int) -> bool:
    child = os.fork()
    if child == 0:
        write_steps(directory, 10, 20, num_ranks=num_ranks)
        made = writers(directory, num_ranks=num_ranks)
        writer = made[num_ranks - 1 - rank]
        os.kill(os.getpid(), signal.SIGSTOP)  # until strace looks on
        # all calls are those of one thread: strace counts for each thread by itself
        shared = SharedState(files={"metrics.jsonl": b"{}\n"})
        writer.save(30, state_of(rank, num_ranks, 30), shared)
        writer.wait()
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    calls = FAMILY.get(call, call)
    inject = f"inject={calls}:signal=SIGKILL:when={number}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
    tracer = subprocess.Popen([*command, "-p", str(child)])
    status = Path(f"/proc/{child}/status")
    while "TracerPid:\t0\n" in status.read_text():
        assert tracer.poll() is None, "strace has ended"
        time.sleep(0.005)
    os.kill(child, signal.SIGCONT)
    _, code = os.waitpid(child, 0)
    tracer.wait()
    return os.WIFSIGNALED(code)


def first_rank_goes_on(directory: Path) -> bool:
    """Write the part of the first of two ranks; return whether the checkpoint was committed."""
    store = store_in(directory)
    first = CheckpointWriter(store, CheckpointConfig(), rank=0, num_ranks=2, attempt=2)
    first.save(30, state_of(0, 2, 30), SharedState(files={"metrics.jsonl": b"{}\n"}))
    time.sleep(0.3)  # more than it takes where the other's part is there
    first.close()
    try:
        first.wait()
    except StorageError:
        return False
    return True


def main(call: str, directory: str, rank: str, num_ranks: str) -> None:
    for number in count(1):
        trial = Path(directory) / f"{call}-{number}"
        if not is_killed(trial, call, number, int(rank), int(num_ranks)):
            return
        if int(rank):
            first_rank_goes_on(trial)
        print(trial, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
