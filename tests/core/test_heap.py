"""What was freed goes back to the system: measured on a process of its own, in pages it has."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PROGRAM = """
import re, sys
from pathlib import Path
from mmcore.core import heap

def resident():
    return int(re.search(r"^RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text(), re.M)[1])

getattr(heap, sys.argv[1])()
before = resident()
# arrays of 4 MiB, which malloc keeps by itself once some have been freed; the last stays above them
held = [b"x" * (4 << 20) for _ in range(16)]
held.append(b"x" * 100_000)
there = resident()
del held[:-1]
if sys.argv[2] == "then":
    heap.give_back()
print(there - before >= 60 << 10, (resident() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("mode", "then", "most"), [("give_back_at_once", "", 2), ("keep_for_more", "then", 2)]
)
def test_what_is_freed_is_no_longer_resident(mode: str, then: str, most: int) -> None:
    command = [sys.executable, "-c", PROGRAM, mode, then]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    was_there, left = done.stdout.split()
    assert was_there == "True"
    assert int(left) <= most


def test_who_computes_keeps_what_it_freed() -> None:
    command = [sys.executable, "-c", PROGRAM, "keep_for_more", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1]) > 30
