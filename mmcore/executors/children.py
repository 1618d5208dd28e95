"""Child processes of this one: they end with it, and take what they have started with them."""

import ctypes
import multiprocessing
import os
import signal
import socket
from multiprocessing.process import BaseProcess

from mmcore.executors.reaper import descendants, kill_all

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan works on."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it died before the kernel was asked


def kill_with_all_below(process: BaseProcess) -> None:
    """End a child with all that it has started."""
    if process.is_alive() and process.pid is not None:
        below = descendants(process.pid)
        process.kill()
        kill_all(below)
    process.join()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
