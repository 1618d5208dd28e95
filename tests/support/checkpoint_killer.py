"""Writes a third checkpoint in children that strace kills at their N-th call of a kind.

Run as a program, so that torch is loaded once for all of them: `checkpoint_killer.py CALL DIRECTORY`
prints the directories of those that were killed, until one of them has come to its end.
"""

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from checkpoint_writers import state_of, write_steps, writers

from mmcore.train.checkpoints.writer import SharedState

FAMILY = {
    "write": "write,pwrite64,writev",
    "rename": "rename,renameat,renameat2",
    "link": "link,linkat",
    "unlink": "unlink,unlinkat",
}


def is_killed(directory: Path, call: str, number: int) -> bool:
    child = os.fork()
    if child == 0:
        write_steps(directory, 10, 20, num_ranks=1)
        (writer,) = writers(directory, num_ranks=1)
        os.kill(os.getpid(), signal.SIGSTOP)  # until strace looks on
        # all calls are those of one thread: strace counts for each thread by itself
        writer.save(30, state_of(0, 1, 30), SharedState(files={"metrics.jsonl": b"{}\n"}))
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


def main(call: str, directory: str) -> None:
    for number in count(1):
        trial = Path(directory) / f"{call}-{number}"
        if not is_killed(trial, call, number):
            return
        print(trial, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
